#include <CLI/CLI.hpp>
#include <iostream>

#include "cli/commands.h"
#include "cli/completion.h"

namespace lighthouse::cli {

void add_completion_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("completion", "Print a completion script for bash, zsh or fish");
  command->footer(
      "Examples:\n"
      "  source <(lighthouse completion bash)        # in ~/.bashrc\n"
      "  source <(lighthouse completion zsh)         # in ~/.zshrc\n"
      "  lighthouse completion fish | source         # in ~/.config/fish/config.fish");
  command->require_subcommand(1);
  const CLI::App* root = &app;
  command->add_subcommand("bash", "For ~/.bashrc")->callback([root] { std::cout << bash_completion(*root); });
  command->add_subcommand("zsh", "For ~/.zshrc")->callback([root] { std::cout << zsh_completion(*root); });
  command->add_subcommand("fish", "For ~/.config/fish/config.fish")->callback([root] {
    std::cout << fish_completion(*root);
  });
}

}  // namespace lighthouse::cli
