#include "cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace lighthouse::cli {

std::function<size_t()> drawing_columns(int descriptor) {
  const char* const terminal = std::getenv("TERM");
  const char* const no_color = std::getenv("NO_COLOR");
  const bool plain = terminal == nullptr || *terminal == '\0' || std::string_view(terminal) == "dumb";
  if (::isatty(descriptor) != 1 || plain || (no_color != nullptr && *no_color != '\0')) return {};
  return [descriptor] {
    constexpr unsigned kUsual = 80;
    winsize size{};
    const bool known = ::ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return size_t{std::clamp(known ? unsigned{size.ws_col} : kUsual, 2U, kUsual) - 1};
  };
}

}  // namespace lighthouse::cli
