mysti_test(test_rng mysti_sample)
mysti_test(test_sampler mysti_sample)
mysti_test(test_checkpoint mysti_diffusion)

# Fresh random inputs against the reference, where Python has torch.
mysti_program(sample_dump SOURCES sample_dump.c LIBS mysti_sample)
set_target_properties(sample_dump PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
add_test(NAME sample_fresh COMMAND ${CMAKE_SOURCE_DIR}/tools/ref/run.sh sample.py --check $<TARGET_FILE:sample_dump>)
set_tests_properties(sample_fresh PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300)

# The whole engine over tiny models, which are made anew for every run.
add_test(NAME tiny_models COMMAND ${CMAKE_SOURCE_DIR}/tools/ref/run.sh ../make_tiny_models.py ${CMAKE_BINARY_DIR}/tests/models)
set_tests_properties(tiny_models PROPERTIES FIXTURES_SETUP tiny_models SKIP_RETURN_CODE 77)
foreach(test test_controlnet test_diffusion test_edits test_embeddings test_flows test_ip_adapter test_sdxl)
  mysti_test(${test} mysti_diffusion)
  target_compile_definitions(${test} PRIVATE TINY_MODELS="${CMAKE_BINARY_DIR}/tests/models")
  set_tests_properties(${test} PROPERTIES FIXTURES_REQUIRED tiny_models SKIP_RETURN_CODE 77 TIMEOUT 600)
endforeach()
