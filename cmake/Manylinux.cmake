# LIGHTHOUSE_MANYLINUX: what is linked asks for no newer function of the C and C++ libraries than manylinux_2_28 has (glibc 2.28,
# libstdc++ of GCC 8), whatever this machine has. The linker gets libraries that hold only those functions
# (manylinux/libraries.py); it fails, and names the symbol, where something newer is called.
option(LIGHTHOUSE_MANYLINUX "link for manylinux_2_28 (wheels)" OFF)
if(NOT LIGHTHOUSE_MANYLINUX)
  return()
endif()
set(_compiler "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} on ${CMAKE_SYSTEM_PROCESSOR}")
if(NOT _compiler MATCHES "^GNU 12\\..* on x86_64$")
  message(FATAL_ERROR "LIGHTHOUSE_MANYLINUX needs GNU 12 on x86_64 (Debian 12), and here is ${_compiler}: from g++ 13 on libstdc++ "
                      "starts its streams in the library, which would be there twice")
endif()
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(_libraries ${CMAKE_BINARY_DIR}/manylinux)
execute_process(COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/manylinux/libraries.py ${CMAKE_CXX_COMPILER} ${_libraries}
  COMMAND_ERROR_IS_FATAL ANY)
# This machine's libgcc_s calls what its glibc has: what other libraries lack is not looked at. What comes from archives, of
# libstdc++ and of ours, stays inside.
add_link_options(-L${_libraries} LINKER:--allow-shlib-undefined LINKER:--exclude-libs,libstdc++.a:libabsent.a
                 LINKER:--wrap=__libc_start_main)
