// What an error says.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "lighthouse/check.h"

namespace lighthouse {

/// The message of the exception of type Error that `body` throws.
template <typename Error = InvalidArgument>
std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another type of exception: " << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

}  // namespace lighthouse
