# cmake --install BUILD --prefix FOLDER: the libraries and their headers for find_package(lighthouse), and the program.
# Not relocatable in one respect: torch is looked for where it was when this was built.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(_package ${CMAKE_INSTALL_LIBDIR}/cmake/lighthouse)

install(TARGETS lighthouse_stages lighthouse_ops LIBRARY ARCHIVE)
install(TARGETS lighthouse_cli RUNTIME)
install(DIRECTORY include/lighthouse TYPE INCLUDE)
set_target_properties(lighthouse_ops PROPERTIES INSTALL_RPATH "${TORCH_RPATH}")
set_target_properties(lighthouse_cli PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR};${TORCH_RPATH}")

set(_torch torch::cpu)
if(LIGHTHOUSE_WITH_CUDA)
  set(_torch torch::cuda)
endif()
configure_package_config_file(cmake/lighthouseConfig.cmake.in ${CMAKE_BINARY_DIR}/package/lighthouseConfig.cmake
  INSTALL_DESTINATION ${_package} PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/package/lighthouseConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/package/lighthouseConfig.cmake ${CMAKE_BINARY_DIR}/package/lighthouseConfigVersion.cmake
              cmake/TorchWheel.cmake DESTINATION ${_package})
