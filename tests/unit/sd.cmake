# Whole pictures of the program against PyTorch.
add_test(NAME picture_fresh COMMAND ${CMAKE_SOURCE_DIR}/tools/ref/run.sh picture.py $<TARGET_FILE:mysti_sd_worker>
         ${CMAKE_BINARY_DIR}/tests/models ${MYSTI_CLIP_VOCAB})
set_tests_properties(picture_fresh PROPERTIES FIXTURES_REQUIRED tiny_models SKIP_RETURN_CODE 77 TIMEOUT 600)

add_test(NAME flows_fresh COMMAND ${CMAKE_SOURCE_DIR}/tools/ref/run.sh flows.py $<TARGET_FILE:mysti_sd_worker>
         ${CMAKE_BINARY_DIR}/tests/models ${MYSTI_CLIP_VOCAB})
set_tests_properties(flows_fresh PROPERTIES FIXTURES_REQUIRED tiny_models SKIP_RETURN_CODE 77 TIMEOUT 600)

add_test(NAME edits_fresh COMMAND ${CMAKE_SOURCE_DIR}/tools/ref/run.sh edits.py $<TARGET_FILE:mysti_sd_worker>
         ${CMAKE_BINARY_DIR}/tests/models ${MYSTI_CLIP_VOCAB})
set_tests_properties(edits_fresh PROPERTIES FIXTURES_REQUIRED tiny_models SKIP_RETURN_CODE 77 TIMEOUT 600)

add_test(NAME lora_fresh COMMAND ${CMAKE_SOURCE_DIR}/tools/ref/run.sh lora.py $<TARGET_FILE:mysti_sd_worker>
         ${CMAKE_BINARY_DIR}/tests/models ${MYSTI_CLIP_VOCAB})
set_tests_properties(lora_fresh PROPERTIES FIXTURES_REQUIRED tiny_models SKIP_RETURN_CODE 77 TIMEOUT 600)

add_test(NAME embeddings_fresh COMMAND ${CMAKE_SOURCE_DIR}/tools/ref/run.sh embeddings.py $<TARGET_FILE:mysti_sd_worker>
         ${CMAKE_BINARY_DIR}/tests/models ${MYSTI_CLIP_VOCAB})
set_tests_properties(embeddings_fresh PROPERTIES FIXTURES_REQUIRED tiny_models SKIP_RETURN_CODE 77 TIMEOUT 600)

add_test(NAME controlnet_picture_fresh COMMAND ${CMAKE_SOURCE_DIR}/tools/ref/run.sh control_picture.py $<TARGET_FILE:mysti_sd_worker>
         ${CMAKE_BINARY_DIR}/tests/models ${MYSTI_CLIP_VOCAB})
set_tests_properties(controlnet_picture_fresh PROPERTIES FIXTURES_REQUIRED tiny_models SKIP_RETURN_CODE 77 TIMEOUT 600)

add_test(NAME ip_adapter_picture_fresh COMMAND ${CMAKE_SOURCE_DIR}/tools/ref/run.sh ip_adapter_picture.py
         $<TARGET_FILE:mysti_sd_worker> ${CMAKE_BINARY_DIR}/tests/models ${MYSTI_CLIP_VOCAB})
set_tests_properties(ip_adapter_picture_fresh PROPERTIES FIXTURES_REQUIRED tiny_models SKIP_RETURN_CODE 77 TIMEOUT 600)

add_test(NAME convert_fresh COMMAND ${CMAKE_SOURCE_DIR}/tools/ref/run.sh convert.py $<TARGET_FILE:mysti_sd_worker>
         ${CMAKE_BINARY_DIR}/tests/models)
set_tests_properties(convert_fresh PROPERTIES FIXTURES_REQUIRED tiny_models SKIP_RETURN_CODE 77 TIMEOUT 600)

mysti_test(test_sd mysti_sd)
target_compile_definitions(test_sd PRIVATE TINY_MODELS="${CMAKE_BINARY_DIR}/tests/models")
set_tests_properties(test_sd PROPERTIES FIXTURES_REQUIRED tiny_models SKIP_RETURN_CODE 77)
