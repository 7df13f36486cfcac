mysti_test(test_llm_text mysti_llm_engine)
mysti_test(test_llm_sampling mysti_llm_engine)
mysti_test(test_llm_engine mysti_llm_engine)
mysti_test(test_llm_worker mysti_proc mysti_net)
target_sources(test_llm_worker PRIVATE worker_bench.c)
target_compile_definitions(test_llm_worker PRIVATE WORKER_DUMMY="$<TARGET_FILE:mysti_llm_worker>")
add_dependencies(test_llm_worker mysti_llm_worker)

# The tests of engine and worker run on a tiny model, made once per test run.
find_program(MYSTI_PYTHON NAMES python3 HINTS /usr/bin REQUIRED) # the system's, which has numpy
set(tiny ${CMAKE_BINARY_DIR}/models/tiny_llm.gguf)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/models)
add_test(NAME make_tiny_llm COMMAND ${MYSTI_PYTHON} ${CMAKE_SOURCE_DIR}/tools/make_tiny_llm.py ${tiny} --context 512)
set(bert ${CMAKE_BINARY_DIR}/models/tiny_bert.gguf)
add_test(NAME make_tiny_bert COMMAND ${MYSTI_PYTHON} ${CMAKE_SOURCE_DIR}/tools/make_tiny_llm.py ${bert} --context 512 --embedding)
set_tests_properties(make_tiny_llm make_tiny_bert PROPERTIES FIXTURES_SETUP tiny_llm)
set_tests_properties(test_llm_engine test_llm_worker PROPERTIES FIXTURES_REQUIRED tiny_llm
                     ENVIRONMENT "MYSTI_TINY_LLM=${tiny};MYSTI_TINY_BERT=${bert}")
