// Options of the command line whose values are words of an enum.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "lighthouse/words.h"

namespace lighthouse::cli {

/// An option that takes one of the words of E, or of `allowed`, and sets `field` to its value.
template <Worded E, typename Field>
CLI::Option* add_word_option(CLI::App& command, const std::string& name, Field& field, const std::string& help,
                             std::vector<std::string> allowed = {}) {
  const auto all = words<E>();
  if (allowed.empty()) allowed.assign(all.begin(), all.end());
  return command
      .add_option_function<std::string>(
          name,
          [&field](const std::string& text) {
            const E value = find_word<E>(text).value();
            field = value;
          },
          help)
      ->check(CLI::IsMember(std::move(allowed)));
}

}  // namespace lighthouse::cli
