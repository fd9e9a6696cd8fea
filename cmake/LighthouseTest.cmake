# lighthouse_test(NAME SOURCES file... LIBRARIES target...): one GoogleTest program, which is one test of ctest: a process
# for each of its cases would load torch hundreds of times. Single cases: NAME --gtest_filter='Suite.*'.
#
# What is tested is in libraries, as fast as ever; code of tests is compiled in the least time. Under the sanitizers its addresses are
# checked; undefined behaviour, whose checks take 40 % of the compiler's time, in the libraries alone.
set(test_options $<$<COMPILE_LANGUAGE:CXX>:-O1>)
if(LIGHTHOUSE_SANITIZE)
  list(APPEND test_options $<$<COMPILE_LANGUAGE:CXX>:-fno-sanitize=undefined>)
endif()
# MKL: products do not depend on where in memory their operands lie, so that tests may compare bits. One thread: on small
# tensors several mostly wait for each other; what threads change, ops_test asks for itself.
set(test_environment "MKL_CBWR=AVX2,STRICT;OMP_NUM_THREADS=1")
function(lighthouse_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBRARIES" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES} GTest::gmock GTest::gtest_main)
  target_compile_options(${name} PRIVATE ${test_options})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR})
  set_target_properties(${name} PROPERTIES BUILD_RPATH "${TORCH_RPATH}")
  add_test(NAME ${name} COMMAND ${name} --gtest_brief=1)
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "${test_environment}")
endfunction()

# Tests of a program on the device, if there is CUDA: those that `filter` names, once more, with tensors there. They are skipped where
# no GPU is seen. Memory that torch hands out is full of NaN (tests/support/nan_memory.cpp).
function(lighthouse_test_on_cuda name filter)
  if(NOT LIGHTHOUSE_WITH_CUDA)
    return()
  endif()
  target_link_libraries(${name} PRIVATE lighthouse_nan_memory)
  add_test(NAME ${name}_on_cuda COMMAND ${name} --gtest_brief=1 --gtest_filter=${filter})
  set_tests_properties(${name}_on_cuda PROPERTIES ENVIRONMENT "LIGHTHOUSE_TEST_DEVICE=cuda;LIGHTHOUSE_TEST_MEMORY=nan" SKIP_RETURN_CODE 77
                                                  LABELS cuda)
endfunction()
