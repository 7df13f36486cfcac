# A worker with a dummy engine, and what the tests of workers share.
mysti_program(worker_dummy SOURCES worker_dummy.c LIBS mysti_worker)
set_target_properties(worker_dummy PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests ENABLE_EXPORTS ON)

foreach(test test_worker test_heartbeat)
  mysti_test(${test} mysti_proc mysti_net)
  target_compile_definitions(${test} PRIVATE WORKER_DUMMY="$<TARGET_FILE:worker_dummy>")
  add_dependencies(${test} worker_dummy)
endforeach()
target_sources(test_worker PRIVATE worker_bench.c)
