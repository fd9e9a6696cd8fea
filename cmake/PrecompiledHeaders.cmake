# Two thirds of the time of a file that uses tensors go into reading torch's headers. They are read once for the libraries,
# once more for the tests (with GoogleTest), and once for src/ops, which is compiled with OpenMP. Only what nearly every such
# file includes itself is in them, so that no file comes to depend on what it does not include.
option(LIGHTHOUSE_PRECOMPILE "read torch's headers once for many files" ON)
if(NOT LIGHTHOUSE_PRECOMPILE)
  return()
endif()
set(tensor_headers <ATen/TensorOperators.h> <ATen/core/Tensor.h>)
file(WRITE ${PROJECT_BINARY_DIR}/precompiled.cpp "")

# precompile_for(NAME HEADERS header... TARGETS target...): all of `targets` share one precompiled file.
function(precompile_for name)
  cmake_parse_arguments(ARG "" "" "HEADERS;TARGETS;LIBRARIES" ${ARGN})
  add_library(${name} OBJECT ${PROJECT_BINARY_DIR}/precompiled.cpp)
  target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES})
  target_precompile_headers(${name} PRIVATE ${ARG_HEADERS})
  foreach(target ${ARG_TARGETS})
    if(TARGET ${target})
      target_precompile_headers(${target} REUSE_FROM ${name})
    endif()
  endforeach()
endfunction()

# Code of one kind: a compiler refuses the headers of position-independent code for code of a position-independent executable.
function(compile_as_libraries_are)
  foreach(target ${ARGN})
    if(TARGET ${target})
      set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
      target_compile_options(${target} PRIVATE -fPIC)
    endif()
  endforeach()
endfunction()

if(LIGHTHOUSE_WITH_CUDA)
  set(torch torch::cuda)
else()
  set(torch torch::cpu)
endif()
set(tests audit_test cli_test decoder_cuda_test eval_test model_test nn_test ops_cuda_test ops_test parallel_test plan_test train_ranks_test
          train_test turned_gather_cuda_test)
compile_as_libraries_are(lighthouse_cli export_fixture ${tests})
precompile_for(lighthouse_tensor_headers HEADERS ${tensor_headers} LIBRARIES ${torch}
  TARGETS lighthouse_audit lighthouse_bench lighthouse_cli lighthouse_eval lighthouse_model lighthouse_nn lighthouse_parallel
          lighthouse_python_operators lighthouse_train export_fixture)
target_precompile_headers(lighthouse_ops PRIVATE ${tensor_headers})
if(LIGHTHOUSE_TESTS)
  precompile_for(lighthouse_test_headers HEADERS ${tensor_headers} <gmock/gmock.h> <gtest/gtest.h> LIBRARIES ${torch} GTest::gmock
    TARGETS ${tests})
  target_compile_options(lighthouse_test_headers PRIVATE ${test_options})  # a compiler takes headers of its own options alone
endif()
