# Where the dependencies come from. scripts/setup.sh writes build/_deps/deps.cmake with the places it filled:
#   MYSTI_SYSROOT       Debian libraries that this release lacks (llhttp, yyjson)
#   MYSTI_LLAMA_PREFIX  the pinned llama.cpp + ggml, built and installed
#   MYSTI_CLIP_VOCAB    the CLIP vocabulary
include(${CMAKE_SOURCE_DIR}/build/_deps/deps.cmake OPTIONAL)

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

if(MYSTI_SYSROOT)
  file(GLOB _pc ${MYSTI_SYSROOT}/usr/lib/*/pkgconfig)
  list(PREPEND CMAKE_PREFIX_PATH ${MYSTI_SYSROOT}/usr)
  if(CMAKE_LIBRARY_ARCHITECTURE)
    set(_lib ${MYSTI_SYSROOT}/usr/lib/${CMAKE_LIBRARY_ARCHITECTURE})
  endif()
endif()

pkg_check_modules(LIBUV REQUIRED IMPORTED_TARGET libuv>=1.44)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(PNG REQUIRED IMPORTED_TARGET libpng)
pkg_check_modules(JPEG REQUIRED IMPORTED_TARGET libjpeg)
pkg_check_modules(WEBP REQUIRED IMPORTED_TARGET libwebp libwebpmux)

# Our two libraries that may live in MYSTI_SYSROOT, under names of our own.
function(mysti_find name header)
  find_path(${name}_INCLUDE ${header} REQUIRED)
  find_library(${name}_LIB NAMES ${ARGN} REQUIRED)
  add_library(mysti_${name} INTERFACE)
  target_include_directories(mysti_${name} SYSTEM INTERFACE ${${name}_INCLUDE})
  target_link_libraries(mysti_${name} INTERFACE ${${name}_LIB})
endfunction()
mysti_find(llhttp llhttp.h libllhttp.a llhttp)
mysti_find(yyjson yyjson.h yyjson)

# The programs find a private yyjson beside themselves, so that build/bin can be moved.
set(CMAKE_BUILD_RPATH_USE_ORIGIN ON)
set(CMAKE_BUILD_RPATH "$ORIGIN;$ORIGIN/../bin")
if(MYSTI_SYSROOT)
  file(GLOB _shared ${_lib}/libyyjson.so.*)
  file(COPY ${_shared} DESTINATION ${CMAKE_BINARY_DIR}/bin)
endif()

if(MYSTI_TESTS)
  pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
  add_library(mysti_cmocka INTERFACE)
  target_link_libraries(mysti_cmocka INTERFACE PkgConfig::CMOCKA)
endif()

# ggml + libllama: a checkout, installed packages, or the pinned build that setup.sh made.
if(MYSTI_LLAMA_DIR)
  foreach(o BUILD_SHARED_LIBS LLAMA_BUILD_COMMON LLAMA_BUILD_TESTS LLAMA_BUILD_TOOLS LLAMA_BUILD_EXAMPLES
            LLAMA_BUILD_SERVER LLAMA_BUILD_APP LLAMA_OPENSSL)
    set(${o} OFF CACHE BOOL "" FORCE)
  endforeach()
  foreach(b CUDA VULKAN HIP METAL)
    set(GGML_${b} ${MYSTI_${b}} CACHE BOOL "" FORCE)
  endforeach()
  add_subdirectory(${MYSTI_LLAMA_DIR} ${CMAKE_BINARY_DIR}/_deps/llama EXCLUDE_FROM_ALL)
  add_library(mysti_ggml INTERFACE)
  target_link_libraries(mysti_ggml INTERFACE ggml)
else()
  if(NOT MYSTI_SYSTEM_LLAMA)
    if(NOT MYSTI_LLAMA_PREFIX)
      message(FATAL_ERROR "llama.cpp is not built yet: run scripts/setup.sh, or give -DMYSTI_LLAMA_DIR=PATH or -DMYSTI_SYSTEM_LLAMA=ON")
    endif()
    list(PREPEND CMAKE_PREFIX_PATH ${MYSTI_LLAMA_PREFIX})
  endif()
  find_package(llama REQUIRED)
  add_library(mysti_ggml INTERFACE)
  target_link_libraries(mysti_ggml INTERFACE ggml::ggml)
endif()
# Static ggml is C++ inside, our programs are linked as C.
target_link_libraries(mysti_ggml INTERFACE ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
add_library(mysti_llama INTERFACE)
target_link_libraries(mysti_llama INTERFACE llama mysti_ggml)
