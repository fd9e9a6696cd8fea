// The parser of the whole program, and the words for what it cannot read.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace lighthouse::cli {

std::unique_ptr<CLI::App> make_app();

/// argv without the program's name; `--key=value` becomes two arguments, so that a value may be empty.
std::vector<std::string> split_arguments(int argc, const char* const* argv);

/// "lighthouse", or "lighthouse train" once the parser has read that command.
std::string command_name(const CLI::App& app);

/// What is wrong with the command line, with the nearest known option or command.
std::string usage_message(const CLI::App& app, const CLI::ParseError& error);

}  // namespace lighthouse::cli
