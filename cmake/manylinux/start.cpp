// The start of a program, for glibc before 2.34 (LIGHTHOUSE_MANYLINUX).
extern "C" {

/// glibc 2.34 runs the constructors of a program itself when it is given no function for that, and a program's start
/// that was compiled for it gives none. Older ones want one, and newer ones take it.
using Initialiser = void(int, char**, char**);
extern Initialiser* __init_array_start[] __attribute__((weak, visibility("hidden")));
extern Initialiser* __init_array_end[] __attribute__((weak, visibility("hidden")));
void _init();

static void initialise(int argc, char** argv, char** environment) {
  _init();
  for (Initialiser** one = __init_array_start; one < __init_array_end; ++one) (*one)(argc, argv, environment);
}

int __real___libc_start_main(int (*main)(int, char**, char**), int argc, char** argv, Initialiser* init, void (*fini)(),
                             void (*loader_fini)(), void* stack_end);
int __wrap___libc_start_main(int (*main)(int, char**, char**), int argc, char** argv, Initialiser*, void (*fini)(),
                             void (*loader_fini)(), void* stack_end) {
  return __real___libc_start_main(main, argc, argv, initialise, fini, loader_fini, stack_end);
}

}  // extern "C"
