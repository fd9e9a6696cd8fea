#include "cli/completion.h"

#include <CLI/CLI.hpp>

namespace lighthouse::cli {
namespace {

struct OptionWords {
  std::string name;  ///< "--training.steps"
  std::string help;
  bool takes_value;
  std::vector<std::string> choices;  ///< empty where any value goes
  bool takes_path;
};

/// The words in the braces of an option's type, "{auto,never}".
std::vector<std::string> choices_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const size_t begin = type.find('{');
  const size_t end = type.find('}');
  if (begin == std::string::npos || end == std::string::npos) return {};
  return CLI::detail::split(type.substr(begin + 1, end - begin - 1), ',');
}

/// By what help shows for the value, or the name of the key.
bool takes_path(const CLI::Option& option, const std::string& name) {
  const std::string& shown = option.get_option_text();
  for (const char* word : {"FILE", "FOLDER", "RUN", "PATH"}) {
    if (shown.starts_with(word)) return true;
  }
  for (const char* ending : {"path", "run_dir", "initial_weights"}) {
    if (name.ends_with(ending)) return true;
  }
  return false;
}

std::vector<OptionWords> options_of(const CLI::App& command) {
  std::vector<OptionWords> words;
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_lnames().empty()) continue;
    const std::string name = "--" + option->get_lnames().front();
    words.push_back({name, option->get_description(), option->get_items_expected_max() > 0, choices_of(*option),
                     takes_path(*option, name)});
  }
  return words;
}

std::string join(const std::vector<std::string>& words) { return CLI::detail::join(words, " "); }

std::vector<std::string> names_of(const std::vector<const CLI::App*>& commands) {
  std::vector<std::string> names;
  names.reserve(commands.size());
  for (const CLI::App* command : commands) names.push_back(command->get_name());
  return names;
}

/// The text with a backslash before each of `special`.
std::string escape(const std::string& text, const std::string& special) {
  std::string escaped;
  for (const char c : text) {
    if (special.find(c) != std::string::npos) escaped += '\\';
    escaped += c;
  }
  return escaped;
}

/// In single quotes, as all three shells read them.
std::string quote(const std::string& text) { return "'" + CLI::detail::find_and_replace(text, "'", "'\\''") + "'"; }

/// One branch of bash's `case "$path:$previous"` for each command below `command` and for each option with a value.
void bash_branches(const CLI::App& command, const std::string& path, std::string& script) {
  std::vector<std::string> words = names_of(command.get_subcommands({}));
  for (const OptionWords& option : options_of(command)) {
    words.push_back(option.name);
    if (!option.takes_value) continue;
    script += "    \"" + path + ":" + option.name + "\")";
    script += option.takes_path ? " files=yes ;;\n" : " words=\"" + join(option.choices) + "\" ;;\n";
  }
  script += "    \"" + path + ":\"*) words=\"" + join(words) + "\" ;;\n";
  for (const CLI::App* subcommand : command.get_subcommands({})) {
    bash_branches(*subcommand, path + " " + subcommand->get_name(), script);
  }
}

void command_paths(const CLI::App& command, const std::string& path, std::vector<std::string>& paths) {
  for (const CLI::App* subcommand : command.get_subcommands({})) {
    paths.push_back("\"" + path + " " + subcommand->get_name() + "\"");
    command_paths(*subcommand, path + " " + subcommand->get_name(), paths);
  }
}

void zsh_command(const CLI::App& command, const std::string& indent, std::string& script) {
  const auto subcommands = command.get_subcommands({});
  if (subcommands.empty()) {
    script += indent + "_arguments";
    for (const OptionWords& option : options_of(command)) {
      const std::string action = option.takes_path ? "_files" : "(" + join(option.choices) + ")";
      const std::string value = option.takes_value ? ":value:" + action : "";
      script += " \\\n" + indent + "  " + quote(option.name + "[" + escape(option.help, "[]\\") + "]" + value);
    }
    script += "\n";
    return;
  }
  script += indent + "if (( CURRENT == 2 )); then\n" + indent + "  commands=(";
  for (const CLI::App* subcommand : subcommands) {
    script += quote(subcommand->get_name() + ":" + subcommand->get_description()) + " ";
  }
  script += ")\n" + indent + "  _describe command commands\n" + indent + "else\n";
  script += indent + "  shift words; (( CURRENT-- ))\n" + indent + "  case \"$words[1]\" in\n";
  for (const CLI::App* subcommand : subcommands) {
    script += indent + "    " + subcommand->get_name() + ")\n";
    zsh_command(*subcommand, indent + "      ", script);
    script += indent + "      ;;\n";
  }
  script += indent + "  esac\n" + indent + "fi\n";
}

/// `seen` is the fish condition under which `command` is the one being typed.
void fish_command(const CLI::App& command, const std::string& seen, std::string& script) {
  const auto subcommands = command.get_subcommands({});
  const std::string none_yet = seen + "not __fish_seen_subcommand_from " + join(names_of(subcommands));
  for (const CLI::App* subcommand : subcommands) {
    script += "complete -c lighthouse -f -n " + quote(none_yet) + " -a " + subcommand->get_name() + " -d " +
              quote(escape(subcommand->get_description(), "\\")) + "\n";
    fish_command(*subcommand, seen + "__fish_seen_subcommand_from " + subcommand->get_name() + "; and ", script);
  }
  const std::string here = subcommands.empty() ? seen.substr(0, seen.rfind("; and ")) : none_yet;
  for (const OptionWords& option : options_of(command)) {
    script += "complete -c lighthouse -n " + quote(here) + " -l " + option.name.substr(2);
    if (!option.choices.empty()) script += " -x -a " + quote(join(option.choices));
    if (option.takes_path) script += " -r";
    if (option.choices.empty() && option.takes_value && !option.takes_path) script += " -x";
    script += " -d " + quote(escape(option.help, "\\")) + "\n";
  }
}

}  // namespace

std::string bash_completion(const CLI::App& root) {
  std::vector<std::string> paths;
  command_paths(root, "", paths);
  std::string branches;
  bash_branches(root, "", branches);
  return "_lighthouse() {\n"
         "  local current=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\" path=\"\" word words "
         "files\n"
         // --key=val is three words to bash.
         "  if [[ $current == = ]]; then current=\"\"\n"
         "  elif [[ $previous == = ]]; then previous=\"${COMP_WORDS[COMP_CWORD-2]}\"; fi\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
         "    case \"$path $word\" in " +
         CLI::detail::join(paths, "|") +
         ") path=\"$path $word\" ;; esac\n"
         "  done\n"
         "  case \"$path:$previous\" in\n" +
         branches +
         "  esac\n"
         "  [[ $files ]] || compopt +o default 2>/dev/null\n"  // bash adds file names only where they are wanted
         "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
         "}\n"
         "complete -o default -F _lighthouse lighthouse\n";
}

std::string zsh_completion(const CLI::App& root) {
  std::string body;
  zsh_command(root, "  ", body);
  return "#compdef lighthouse\n_lighthouse() {\n  local -a commands\n" + body +
         "}\n"
         // Sourced in a shell that has not set completion up yet, or found by compinit as the file _lighthouse.
         "if [[ $funcstack[1] == _lighthouse ]]; then\n"
         "  _lighthouse \"$@\"\n"
         "else\n"
         "  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"
         "  compdef _lighthouse lighthouse\n"
         "fi\n";
}

std::string fish_completion(const CLI::App& root) {
  std::string script = "complete -c lighthouse -e\n";
  fish_command(root, "", script);
  return script;
}

}  // namespace lighthouse::cli
