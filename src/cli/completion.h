// Completion scripts, made from the parser itself so that they cannot fall behind it.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace lighthouse::cli {

/// Completes commands, options, the values of options that allow only certain words, and file names where one is
/// wanted.
std::string bash_completion(const CLI::App& root);
std::string zsh_completion(const CLI::App& root);
std::string fish_completion(const CLI::App& root);

}  // namespace lighthouse::cli
