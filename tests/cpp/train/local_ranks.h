// Ranks without a network: threads or forked processes that agree over sockets.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "train/checkpoint_ranks.h"

namespace lighthouse {

/// A socket between each rank and rank 0, over which texts go with their length in front.
class LocalRanks {
 public:
  explicit LocalRanks(int64_t size) : ends_(static_cast<size_t>(size)) {
    for (auto& ends : ends_) {
      if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) != 0) throw std::runtime_error("no sockets");
    }
  }
  ~LocalRanks() {
    for (const auto& ends : ends_) {
      for (const int end : ends) ::close(end);
    }
  }
  LocalRanks(const LocalRanks&) = delete;
  LocalRanks& operator=(const LocalRanks&) = delete;

  int64_t size() const { return static_cast<int64_t>(ends_.size()); }

  /// The others hear that it is lost.
  void leave(int64_t rank) {
    for (size_t other = 0; other < ends_.size(); ++other) {
      if (rank == 0 || rank == static_cast<int64_t>(other)) ::shutdown(ends_[other][0], SHUT_RDWR);
    }
  }

  CheckpointRanks of(int64_t rank) {
    return {rank, size(), [this, rank](const std::string& text, const CheckpointRanks::Conclude& conclude) {
              if (rank != 0) {
                put(ends_[static_cast<size_t>(rank)][1], text);
                return get(ends_[static_cast<size_t>(rank)][1]);
              }
              std::vector<std::string> texts = {text};
              for (size_t other = 1; other < ends_.size(); ++other) texts.push_back(get(ends_[other][0]));
              std::string end = conclude(texts);
              for (size_t other = 1; other < ends_.size(); ++other) put(ends_[other][0], end);
              return end;
            }};
  }

 private:
  static void put(int socket, const std::string& text) {
    const uint64_t size = text.size();
    const std::string framed = std::string(reinterpret_cast<const char*>(&size), sizeof size) + text;
    for (size_t done = 0; done < framed.size();) {
      const ssize_t sent = ::send(socket, framed.data() + done, framed.size() - done, MSG_NOSIGNAL);
      if (sent <= 0) throw std::runtime_error("a rank is lost");
      done += static_cast<size_t>(sent);
    }
  }
  static void get(int socket, char* data, size_t size) {
    for (size_t done = 0; done < size;) {
      const ssize_t got = ::read(socket, data + done, size - done);
      if (got <= 0) throw std::runtime_error("a rank is lost");
      done += static_cast<size_t>(got);
    }
  }
  static std::string get(int socket) {
    uint64_t size = 0;
    get(socket, reinterpret_cast<char*>(&size), sizeof size);
    std::string text(size, '\0');
    get(socket, text.data(), size);
    return text;
  }

  std::vector<std::array<int, 2>> ends_;
};

/// Runs `body` as each of `size` ranks, in threads. What one throws is a failure of the test.
inline void on_ranks(int64_t size, const std::function<void(const CheckpointRanks&)>& body) {
  LocalRanks ranks(size);
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(ranks.of(rank));
      } catch (const std::exception& error) {
        ranks.leave(rank);
        ADD_FAILURE() << "rank " << rank << " of " << size << ": " << error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace lighthouse
