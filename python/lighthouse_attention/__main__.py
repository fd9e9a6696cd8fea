"""python -m lighthouse_attention: versions, devices, operators, and what does not fit together. Exit code 1 then.

python -m lighthouse_attention run PROGRAM ...: a Python program (a file, a command, or -m MODULE) in which transformers knows
attn_implementation="lighthouse", though the program does not import this package.
"""

import os
import platform
import runpy
import shutil
import sys

import torch


def device_lines(problems):
    """One line for each device, with whether the operators run there."""
    from . import library
    built = library.built_with()
    cpu_error = library.cpu_error()
    if cpu_error:
        problems.append(cpu_error)
    yield f"cpu        {platform.machine()}, {torch.get_num_threads()} threads: {'no' if cpu_error else 'yes'}"
    if torch.version.cuda is None:
        if built["cuda"]:
            yield "cuda       no: this torch has no CUDA"
        return
    if not torch.cuda.is_available():
        yield "cuda       no: torch sees no GPU" + ("" if library.driver_cuda() else ", and there is no driver")
        return
    for index in range(torch.cuda.device_count()):
        name, (major, minor) = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
        problem = cuda_problem(built, library.driver_cuda(), major, minor)
        if problem:
            problems.append(f"cuda:{index} ({name}): {problem}")
        yield f"cuda:{index}     {name}, compute capability {major}.{minor}: {'no' if problem else 'yes'}"


def cuda_problem(built, driver, major, minor):
    """Why the kernels cannot run on a GPU of this compute capability; None if they can."""
    if built["cuda"] is None:
        return ("the library was built without CUDA, so tensors must be on the CPU; install a CUDA toolkit (nvcc) and build it "
                "again: pip install --force-reinstall --no-binary lighthouse-attention .")
    if driver is None or driver[0] < int(built["cuda"].split(".")[0]):
        known = f"knows CUDA {driver[0]}.{driver[1]}" if driver else "is not found"
        return f"the kernels need a driver for CUDA {built['cuda']}, this one {known}; update the driver"
    if (major, minor) < (8, 0):
        return (f"the kernels need a GPU of compute capability 8.0 (A100, RTX 30) or newer, this one has {major}.{minor}; leave "
                "tensors on the CPU")
    targets = built["architectures"].split(",")
    if not any(runs_on(target, major, minor) for target in targets):
        return (f"the kernels were compiled for {', '.join(targets)}, not for {major}{minor}; build them for this GPU: "
                f"pip install . -C cmake.define.LIGHTHOUSE_CUDA_ARCHITECTURES={major}{minor}")
    return None


def runs_on(target, major, minor):
    """Whether code for a target as CMake writes it runs on a GPU: machine code ("80-real") on later ones of its generation, PTX
    ("80-virtual") on all later ones, both kinds ("80") on either; "90a" on no other than 9.0."""
    name, _, kind = target.partition("-")
    of_target = divmod(int(name.rstrip("af")), 10)
    if name.endswith("a"):
        return of_target == (major, minor)
    newer = of_target <= (major, minor)
    return newer and (of_target[0] == major or kind != "real" and not name.endswith("f"))


def version_of(package):
    from importlib import metadata
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def main():
    problems = []
    print(f"python     {platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"torch      {torch.__version__}, CUDA {torch.version.cuda or 'none'}")
    try:
        from . import library, operators, versions
    except ImportError as error:
        print(f"\nproblem: {error}")
        return 1
    built = library.built_with()
    print(f"lighthouse {library.version()}, {library.find()}")
    installed = version_of("lighthouse-attention")
    if installed not in ("not installed", library.version()):
        problems.append(f"the installed package is {installed}, but its library is {library.version()}: {library.find()}; install "
                        "the package again, or unset LIGHTHOUSE_LIBRARY")
    print(f"built      with the headers of torch {built['torch']}, "
          + (f"CUDA {built['cuda']} for {built['architectures']}" if built["cuda"] else "without CUDA"))
    for package in ("transformers", "torchtitan"):
        print(f"{package:<10} {version_of(package)}")
    if version_of("transformers") != "not installed" and versions.transformers_problem(version_of("transformers")):
        problems.append(versions.transformers_problem(version_of("transformers")))
    for line in device_lines(problems):
        print(line)
    print("operators  " + " ".join(f"lighthouse::{name}" for name in operators.NAMES))
    for problem in problems:
        print(f"\nproblem: {problem}")
    if not problems:
        print("\neverything fits together")
    return 1 if problems else 0


def run(arguments):
    """What `python ARGUMENTS` would do, after the import."""
    if not arguments or arguments == ["-m"]:
        print("usage: python -m lighthouse_attention run FILE|COMMAND|-m MODULE ...", file=sys.stderr)
        return 2
    from . import huggingface  # noqa: F401
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return 0
    sys.argv = arguments
    file = arguments[0] if os.path.exists(arguments[0]) else shutil.which(arguments[0])
    if file is None:
        print(f"python -m lighthouse_attention run: {arguments[0]} is neither a file nor a command", file=sys.stderr)
        return 2
    sys.path.insert(0, os.path.dirname(os.path.abspath(file)))
    runpy.run_path(file, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[2:]) if sys.argv[1:2] == ["run"] else main())
