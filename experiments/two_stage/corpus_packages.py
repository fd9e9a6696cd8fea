"""What a corpus is made of: the pinned archive of a Debian source package and the rules that choose text from it."""

from dataclasses import dataclass

KINDS = {
    "C and C++": "c cc cpp h hpp inc def m mm cl cu S",
    "TableGen": "td",
    "documentation": "rst md txt",
    "scripts": "py pl sh cmake ml mli go",
    "device trees": "dts dtsi",
    "compiler IR and assembly": "ll mir mlir s fir",
}
KIND_OF_EXTENSION = {extension: kind for kind, extensions in KINDS.items() for extension in extensions.split()}
TEST_FOLDERS = frozenset({"test", "tests", "unittest", "unittests"})


class CorpusError(Exception):
    """Says what was found, what was expected and what would do."""


@dataclass(frozen=True)
class Limits:
    """A file is kept when all of these hold. Machine-made text shows in what they bound."""

    min_bytes: int
    max_bytes: int = 2_500_000
    max_digits: float = 0.15  # share of bytes
    max_packing: float = 15.0  # size / size after bzip2 -9, whose output is the same everywhere
    max_mean_line: float = 200.0  # bytes per line
    max_check_lines: float = 0.3  # share of lines that are a comment with a label, such as "; CHECK-NEXT:"


@dataclass(frozen=True)
class Package:
    """A source package and its choice. Paths count from the archive's one top folder."""

    name: str
    version: str
    licence: str
    archive: str  # the upstream tarball, as the package's .dsc names it
    archive_sha256: str
    source: Limits
    test: Limits | None  # for files below a folder of TEST_FOLDERS; None leaves them out
    left_out: tuple[str, ...]  # beginnings of paths
    extensionless: tuple[str, ...]  # folders whose files without an extension are C++ headers
    held_out: tuple[str, ...]  # folders
    manifest_sha256: str  # of manifest.json: whoever gets it has the same corpus, byte for byte


LLVM = Package(
    name="llvm-toolchain-14",
    version="1:14.0.6-12",
    licence="Apache-2.0 with LLVM exceptions",
    archive="llvm-toolchain-14_14.0.6.orig.tar.xz",
    archive_sha256="d9bce5f42381d781e273c724db1ab0acd66259bf2782b79891664dbf1953d22c",
    source=Limits(min_bytes=8192),
    test=Limits(min_bytes=16384, max_packing=16.0, max_check_lines=0.8),
    left_out=("llvm/docs/_build/", "clang/docs/tools/clang-formatted-files.txt"),
    extensionless=("libcxx/include/",),
    held_out=("bolt/", "clang-tools-extra/", "flang/", "lld/"),
    manifest_sha256="008a8fbb3c5ef0fcdaae42b65cecd453c92b5e89d598814f27ba6392262871c1",
)

LINUX = Package(
    name="linux",
    version="6.1.176-1",
    licence="GPL-2.0 with the syscall note",
    archive="linux_6.1.176.orig.tar.xz",
    archive_sha256="9aad4025973feea3f0d978e82ab7db97d8d5ce3f59fcc6b1f316153d66e3a504",
    source=Limits(min_bytes=40960, max_bytes=1_000_000),
    test=None,
    left_out=("drivers/gpu/drm/amd/include/asic_reg/",),
    extensionless=(),
    held_out=("sound/",),
    manifest_sha256="6595291109a083adf5b721d3221a554ca5de7d6453f944cf147d11ded658a603",
)

PACKAGES = {package.name: package for package in (LLVM, LINUX)}
