#include "parallel/free_port.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <system_error>

namespace lighthouse {
namespace {

bool is_free(uint16_t port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  if (socket < 0) throw std::system_error(errno, std::generic_category(), "launch: no socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool found = ::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  ::close(socket);
  return found;
}

}  // namespace

uint16_t free_port() {
  constexpr int kTries = 1000;
  std::random_device random;
  std::uniform_int_distribution<uint16_t> ports(20'000, 32'767);
  for (int i = 0; i < kTries; ++i) {
    if (const uint16_t port = ports(random); is_free(port)) return port;
  }
  throw std::system_error(EADDRINUSE, std::generic_category(), "launch: no free port from 20,000 to 32,767");
}

}  // namespace lighthouse
