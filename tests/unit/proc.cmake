# A child for the process tests: it crashes, sleeps, prints and ignores signals as told.
add_executable(proc_child proc_child.c)
set_target_properties(proc_child PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

mysti_test(test_supervisor mysti_proc)
mysti_test(test_progress mysti_proc)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux") # names come from ELF files
  mysti_test(test_backtrace mysti_proc)
endif()
mysti_test(test_proc mysti_proc)
target_compile_definitions(test_proc PRIVATE PROC_CHILD="$<TARGET_FILE:proc_child>")
add_dependencies(test_proc proc_child)
