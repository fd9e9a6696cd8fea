# cudnn::frontend: the headers of the wheel nvidia-cudnn-frontend, beside torch's package, and cuDNN's own from torch's
# wheels. Optional: without them there is no such target, and deterministic attention on CUDA is FlashAttention-2.
# Nothing is linked: cudnn-frontend looks its functions up in the cuDNN that libtorch_cuda has loaded.
find_path(CUDNN_FRONTEND_INCLUDE_DIR cudnn_frontend.h HINTS "${_root}/../include" DOC "cudnn-frontend's headers; may be absent")
find_path(CUDNN_INCLUDE_DIR cudnn_graph.h HINTS "${_nv}/cudnn/include" DOC "cuDNN's headers, of torch's cuDNN")
if(CUDNN_FRONTEND_INCLUDE_DIR AND CUDNN_INCLUDE_DIR)
  add_library(cudnn::frontend INTERFACE IMPORTED)
  target_include_directories(cudnn::frontend SYSTEM INTERFACE "${CUDNN_FRONTEND_INCLUDE_DIR}" "${CUDNN_INCLUDE_DIR}")
  target_compile_definitions(cudnn::frontend INTERFACE
    NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING CUDNN_FRONTEND_SKIP_JSON_LIB)  # 1 MB of header that only logging needs
  target_link_libraries(cudnn::frontend INTERFACE ${CMAKE_DL_LIBS})
  message(STATUS "cudnn-frontend: ${CUDNN_FRONTEND_INCLUDE_DIR}")
else()
  message(STATUS "cudnn-frontend: not found (pip install --no-deps -r requirements-headers.txt)")
endif()
