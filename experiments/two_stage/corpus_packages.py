"""What a corpus is made of: pinned archives of Debian source packages and the rules that choose text from them."""

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


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The upstream tarball of a source package."""

    name: str
    version: str
    archive: str  # as the package's .dsc names it
    archive_sha256: str


@dataclass(frozen=True, kw_only=True)
class Rules:
    """A choice of text. Paths count from an archive's one top folder."""

    licence: str
    source: Limits
    test: Limits | None  # for files below a folder of TEST_FOLDERS; None leaves them out
    left_out: tuple[str, ...]  # beginnings of paths
    extensionless: tuple[str, ...]  # folders whose files without an extension are C++ headers
    held_out: tuple[str, ...]  # folders
    manifest_sha256: str  # of manifest.json: whoever gets it has the same corpus, byte for byte
    chosen = ("",)  # beginnings of paths outside of which nothing is chosen


@dataclass(frozen=True, kw_only=True)
class Package(Archive, Rules):
    """A corpus of one source package."""

    archives = property(lambda self: (self,))


@dataclass(frozen=True, kw_only=True)
class Releases(Rules):
    """A corpus of several releases of one project: the releases of a file follow each other, the oldest first."""

    name: str
    version: str
    archives: tuple[Archive, ...]
    fewest: int  # a file is kept with so many different releases within the limits, or not at all


@dataclass(frozen=True, kw_only=True)
class Collection(Rules):
    """A corpus of parts of several packages, code and prose apart: code/PACKAGE/path, prose/PACKAGE/path."""

    name: str
    version: str
    archives: tuple[Archive, ...]
    chosen: tuple[str, ...]


LLVM_14 = Archive(
    name="llvm-toolchain-14",
    version="1:14.0.6-12",
    archive="llvm-toolchain-14_14.0.6.orig.tar.xz",
    archive_sha256="d9bce5f42381d781e273c724db1ab0acd66259bf2782b79891664dbf1953d22c",
)

LLVM = Package(
    **vars(LLVM_14),
    licence="Apache-2.0 with LLVM exceptions",
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

LLVM_RELEASES = Releases(
    name="llvm-releases",
    version="13, 14, 15, 16 and 19",
    licence=LLVM.licence,
    archives=(
        Archive(
            name="llvm-toolchain-13",
            version="1:13.0.1-11",
            archive="llvm-toolchain-13_13.0.1.orig.tar.xz",
            archive_sha256="38f14321caa46e0c890ceac2faf5ba29af6f1db759214134516515596e675a80",
        ),
        LLVM_14,
        Archive(
            name="llvm-toolchain-15",
            version="1:15.0.6-4",
            archive="llvm-toolchain-15_15.0.6.orig.tar.xz",
            archive_sha256="076ac9fe372b3141b4fcbee80abfae34f9574fdb959cd8d14a7fd3f39ff89399",
        ),
        Archive(
            name="llvm-toolchain-16",
            version="1:16.0.6-15~deb12u1",
            archive="llvm-toolchain-16_16.0.6.orig.tar.xz",
            archive_sha256="5ab98480d3bc9f1896de1a1afafb46c318a9baa02bf21a4f6830c644d06c1cc0",
        ),
        Archive(
            name="llvm-toolchain-19",
            version="1:19.1.7-3~deb12u1",
            archive="llvm-toolchain-19_19.1.7.orig.tar.xz",
            archive_sha256="ae498f3bc58ae2d9f64ef5f0c035c4240152bf015a5b7738b15c22e93bdc97ce",
        ),
    ),
    fewest=2,
    source=Limits(min_bytes=4096, max_bytes=32768),
    test=None,
    left_out=(),
    extensionless=(),
    held_out=LLVM.held_out,
    manifest_sha256="f41de33f17d57d71f265f0f3fac667ee19800da9aa10f27e5d1486f7d4482d8f",
)

LONG_TEXTS = Collection(
    name="long-texts",
    version="of Debian 12",
    licence="Apache-2.0 with LLVM exceptions (LLVM), Vim (Vim), PSF-2.0 (Python), BSD-3-Clause (Django, CMake, GHC)",
    archives=(
        LLVM_14,
        Archive(
            name="vim",
            version="2:9.0.1378-2+deb12u2",
            archive="vim_9.0.1378.orig.tar.xz",
            archive_sha256="6f20c108c0fe5dbcb00a00080b3607feb024a499de2c4d004de9c3bd74516523",
        ),
        Archive(
            name="python3.11",
            version="3.11.2-6+deb12u9",
            archive="python3.11_3.11.2.orig.tar.gz",
            archive_sha256="2411c74bda5bbcfcddaf4531f66d1adc73f247f529aee981b029513aefdbf849",
        ),
        Archive(
            name="python-django",
            version="3:3.2.25-0+deb12u7",
            archive="python-django_3.2.25.orig.tar.gz",
            archive_sha256="7ca38a78654aee72378594d63e51636c04b8e28574f5505dff630895b5472777",
        ),
        Archive(
            name="cmake",
            version="3.25.1-1",
            archive="cmake_3.25.1.orig.tar.gz",
            archive_sha256="1c511d09516af493694ed9baf13c55947a36389674d657a2d5e0ccedc6b291d8",
        ),
        Archive(
            name="ghc",
            version="9.0.2-4",
            archive="ghc_9.0.2.orig.tar.xz",
            archive_sha256="140e42b96346322d1a39eb17602bcdc76e292028ad4a69286b230bab188a9197",
        ),
    ),
    chosen=("code/llvm-toolchain-14/clang/lib/", "code/llvm-toolchain-14/llvm/lib/CodeGen/",
            "code/llvm-toolchain-14/llvm/lib/Transforms/", "code/llvm-toolchain-14/lld/", "code/llvm-toolchain-14/flang/lib/",
            "prose/llvm-toolchain-14/", "prose/vim/runtime/doc/", "prose/python3.11/Doc/", "prose/python-django/docs/",
            "prose/cmake/Help/", "prose/ghc/docs/"),
    source=Limits(min_bytes=8192),
    test=None,
    left_out=("prose/llvm-toolchain-14/llvm/docs/_build/", "prose/llvm-toolchain-14/clang/docs/tools/clang-formatted-files.txt"),
    extensionless=(),
    held_out=("code/llvm-toolchain-14/lld/", "code/llvm-toolchain-14/flang/", "prose/python3.11/Doc/whatsnew/",
              "prose/python-django/docs/topics/", "prose/ghc/"),
    manifest_sha256="c04dbf02f9a059ca279821a8caea100b14bcebc539b013e588bffa73ae66aa02",
)

PACKAGES = {package.name: package for package in (LLVM, LINUX, LLVM_RELEASES, LONG_TEXTS)}
