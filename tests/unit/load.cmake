mysti_test(test_model_file mysti_modelfile)
mysti_test(test_tensor_names mysti_modelfile)
mysti_test(test_weights mysti_diffusion)
mysti_test(test_convert mysti_diffusion)

# Two files compared; what PyTorch writes against the same as safetensors.
mysti_program(file_check SOURCES file_check.c LIBS mysti_modelfile)
set_target_properties(file_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
add_test(NAME torch_files_fresh COMMAND ${CMAKE_SOURCE_DIR}/tools/ref/run.sh torch_files.py $<TARGET_FILE:file_check>)
set_tests_properties(torch_files_fresh PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300)
