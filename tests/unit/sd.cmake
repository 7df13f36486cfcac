# Whole pictures of the program against PyTorch.
add_test(NAME picture_fresh COMMAND ${CMAKE_SOURCE_DIR}/tools/ref/run.sh picture.py $<TARGET_FILE:mysti_sd_worker>
         ${CMAKE_BINARY_DIR}/tests/models ${MYSTI_CLIP_VOCAB})
set_tests_properties(picture_fresh PROPERTIES FIXTURES_REQUIRED tiny_models SKIP_RETURN_CODE 77 TIMEOUT 600)

mysti_test(test_sd mysti_sd)
target_compile_definitions(test_sd PRIVATE TINY_MODELS="${CMAKE_BINARY_DIR}/tests/models")
set_tests_properties(test_sd PROPERTIES FIXTURES_REQUIRED tiny_models SKIP_RETURN_CODE 77)
