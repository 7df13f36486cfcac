# How every target of ours is compiled, and the few functions that define targets.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()

# Warnings are errors in our code only; third-party targets keep their own flags.
add_library(mysti_plain_flags INTERFACE)
target_include_directories(mysti_plain_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_definitions(mysti_plain_flags INTERFACE _GNU_SOURCE MYSTI_VERSION="${PROJECT_VERSION}")
target_compile_options(mysti_plain_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fno-omit-frame-pointer)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  target_compile_options(mysti_plain_flags INTERFACE -Wno-format-truncation) # messages are cut to fit on purpose
endif()
add_library(mysti_flags INTERFACE)
target_link_libraries(mysti_flags INTERFACE mysti_plain_flags)
if(MYSTI_SANITIZE)
  target_compile_options(mysti_flags INTERFACE -fsanitize=${MYSTI_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(mysti_flags INTERFACE -fsanitize=${MYSTI_SANITIZE})
elseif(MYSTI_FUZZ)
  target_compile_options(mysti_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
  target_link_options(mysti_flags INTERFACE -fsanitize=fuzzer-no-link,address,undefined)
endif()

# mysti_library(name SOURCES a.c ... LIBS x ...)
function(mysti_library name)
  cmake_parse_arguments(A "" "" "SOURCES;LIBS" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  target_link_libraries(${name} PUBLIC mysti_flags ${A_LIBS})
endfunction()

# mysti_program(name SOURCES a.c ... LIBS x ...)
function(mysti_program name)
  cmake_parse_arguments(A "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_link_libraries(${name} PRIVATE mysti_flags ${A_LIBS})
endfunction()

# mysti_test(name lib ...): one cmocka program from name.c in the calling list's folder.
function(mysti_test name)
  add_executable(${name} ${name}.c)
  target_link_libraries(${name} PRIVATE mysti_flags ${ARGN} mysti_cmocka)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT 600)
endfunction()

if(MYSTI_FUZZ)
  add_custom_target(mysti_fuzzers) # all of them
endif()

# mysti_fuzz(name lib ...): one libFuzzer program from name.c; ctest runs it for a few seconds on its corpus/name folder.
function(mysti_fuzz name)
  add_executable(${name} ${name}.c)
  target_link_libraries(${name} PRIVATE mysti_flags ${ARGN} -fsanitize=fuzzer)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  add_dependencies(mysti_fuzzers ${name})
  set(scratch ${CMAKE_BINARY_DIR}/corpus/${name})
  file(MAKE_DIRECTORY ${scratch})
  add_test(NAME ${name} COMMAND ${name} -max_total_time=5 -timeout=60 -max_len=65536 -rss_limit_mb=2048
           ${scratch} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
endfunction()
