// What glibc 2.28 lacks of that which code calls that was compiled with the headers of a newer one
// (LIGHTHOUSE_MANYLINUX).
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#include <cstdint>

extern "C" {

/// glibc 2.32: whether the process has one thread for certain. Never said, so reference counts are atomic.
char __libc_single_threaded = 0;

/// glibc 2.33: before, headers had these call what takes the layout of the struct, which is 1 on x86-64.
int __xstat(int layout, const char* path, struct stat* out);
int __fxstat(int layout, int file, struct stat* out);
int __lxstat(int layout, const char* path, struct stat* out);
int stat(const char* path, struct stat* out) noexcept { return __xstat(1, path, out); }
int fstat(int file, struct stat* out) noexcept { return __fxstat(1, file, out); }
int lstat(const char* path, struct stat* out) noexcept { return __lxstat(1, path, out); }

/// glibc 2.30: as libstdc++ waited before, until the same moment by the clock that can be set. A wait that returns too
/// early is repeated by those who call this with a predicate; the deadline moves where somebody sets the clock
/// meanwhile.
int pthread_cond_clockwait(pthread_cond_t* condition, pthread_mutex_t* mutex, clockid_t clock,
                           const timespec* deadline) {
  constexpr int64_t kSecond = 1'000'000'000;
  timespec now{}, real{};
  clock_gettime(clock, &now);
  clock_gettime(CLOCK_REALTIME, &real);
  const int64_t nanoseconds = real.tv_nsec + deadline->tv_nsec - now.tv_nsec + kSecond;
  const timespec until{real.tv_sec + deadline->tv_sec - now.tv_sec - 1 + nanoseconds / kSecond, nanoseconds % kSecond};
  return pthread_cond_timedwait(condition, mutex, &until);
}

}  // extern "C"
