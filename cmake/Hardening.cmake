# The distribution's hardening where it costs nothing. All that is linked: addresses of functions are resolved at the start
# and then read only; the program may lie anywhere (PIE, src/cli). What reads the bytes of others and what Python calls
# (harden_layers): canaries of stacks, and calls of the C library that know the size of their target. Not the stages, whose
# time counts, nor what shares the precompiled headers of cmake/PrecompiledHeaders.cmake, which would have to be hardened with
# all that do. Not under sanitizers, which do the same better.
if(NOT LIGHTHOUSE_SANITIZE)
  add_link_options("LINKER:-z,relro,-z,now")
endif()

function(harden_layers)
  if(LIGHTHOUSE_SANITIZE)
    return()
  endif()
  foreach(layer ${ARGN})
    target_compile_options(lighthouse_${layer} PRIVATE -fstack-protector-strong
      $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE> $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=2>)
  endforeach()
endfunction()
