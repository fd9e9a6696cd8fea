# Which GPUs the kernels are compiled for. Sets
#   LIGHTHOUSE_GPUS         compute capabilities of the GPUs of this machine, as 9.0; empty without
#   CUDA_ARCHITECTURES      what LIGHTHOUSE_CUDA_ARCHITECTURES stands for, as CMAKE_CUDA_ARCHITECTURES takes it
set(LIGHTHOUSE_CUDA_ARCHITECTURES native CACHE STRING
  "native (the GPUs of this machine, else 90a), all (those of wheels), or a list as CMAKE_CUDA_ARCHITECTURES takes it")

# 120 also as PTX, which drivers compile for GPUs that come later.
set(LIGHTHOUSE_WHEEL_ARCHITECTURES 80-real 86-real 89-real 90a-real 100-real 103-real 120)
set(LIGHTHOUSE_ARCHITECTURES_RUN 90a)  # whose code was run on a GPU: docs/python.md has the table

set(LIGHTHOUSE_GPUS "")
find_program(NVIDIA_SMI nvidia-smi)
if(NVIDIA_SMI)
  execute_process(COMMAND ${NVIDIA_SMI} --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE _capabilities RESULT_VARIABLE _failed ERROR_QUIET)
  if(NOT _failed)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]+" LIGHTHOUSE_GPUS "${_capabilities}")
    list(REMOVE_DUPLICATES LIGHTHOUSE_GPUS)
  endif()
endif()

set(CUDA_ARCHITECTURES "")
if(LIGHTHOUSE_CUDA_ARCHITECTURES STREQUAL "native")
  foreach(_gpu ${LIGHTHOUSE_GPUS})
    if(_gpu VERSION_LESS 8.0)
      message(WARNING "a GPU of this machine has compute capability ${_gpu}; the kernels need 8.0 (A100, RTX 30) or newer, and leave it out")
    elseif(_gpu VERSION_EQUAL 9.0)
      list(APPEND CUDA_ARCHITECTURES 90a-real)
    else()
      string(REPLACE "." "" _number ${_gpu})
      list(APPEND CUDA_ARCHITECTURES ${_number}-real)
    endif()
  endforeach()
  if(NOT CUDA_ARCHITECTURES)
    set(CUDA_ARCHITECTURES 90a-real)
  endif()
elseif(LIGHTHOUSE_CUDA_ARCHITECTURES STREQUAL "all")
  set(CUDA_ARCHITECTURES ${LIGHTHOUSE_WHEEL_ARCHITECTURES})
else()
  foreach(_architecture ${LIGHTHOUSE_CUDA_ARCHITECTURES})
    if(NOT _architecture MATCHES "^([0-9]+)[af]?(-real|-virtual)?$" OR CMAKE_MATCH_1 LESS 80)
      message(FATAL_ERROR "LIGHTHOUSE_CUDA_ARCHITECTURES has '${_architecture}'; it must be native, all, or a list of architectures "
                          "from 80 on, such as 80-real;90a-real;120")
    endif()
  endforeach()
  set(CUDA_ARCHITECTURES ${LIGHTHOUSE_CUDA_ARCHITECTURES})
endif()
