# The distribution's hardening where it costs nothing. All that is linked: addresses of functions are resolved at the start
# and then read only; the program may lie anywhere (PIE, src/cli). All code of the host but the stages, whose time counts:
# canaries of stacks, and calls of the C library that know the size of their target. What shares precompiled headers is
# hardened with them, or not at all. Not under sanitizers, which do the same better.
if(NOT LIGHTHOUSE_SANITIZE)
  add_link_options("LINKER:-z,relro,-z,now")
endif()

function(harden)
  if(LIGHTHOUSE_SANITIZE)
    return()
  endif()
  foreach(target ${ARGN})
    if(TARGET ${target})
      target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fstack-protector-strong>
        $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<NOT:$<CONFIG:Debug>>>:-U_FORTIFY_SOURCE>
        $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<NOT:$<CONFIG:Debug>>>:-D_FORTIFY_SOURCE=2>)
    endif()
  endforeach()
endfunction()
