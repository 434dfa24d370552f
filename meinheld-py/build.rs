//! Compiles the C half of the thread-state exchange, and what calls Python, against the headers of the
//! interpreter that `PyO3` resolved. Each reason to refuse is one line that says what to do.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::exit;

use pyo3_build_config::{InterpreterConfig, PythonImplementation};

const SOURCES: &str = "src/tstate";
const UNWINDING: &str = "src/unwinding.c";
const HEADERS_NEEDED: [&str; 2] = ["Python.h", "internal/pycore_frame.h"];
const MINORS: std::ops::RangeInclusive<u8> = 11..=15;

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    rerun_if_changed();

    let interpreter = pyo3_build_config::get();
    refuse_unsupported(interpreter);
    compile(&header_directories(interpreter));
}

fn rerun_if_changed() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={UNWINDING}");
    println!("cargo::rerun-if-env-changed=PYO3_PYTHON");
    for file in std::fs::read_dir(SOURCES).into_iter().flatten().flatten() {
        if file.path().extension().is_some_and(|kind| kind == "c" || kind == "h") {
            println!("cargo::rerun-if-changed={}", file.path().display());
        }
    }
}

fn refuse_unsupported(interpreter: &InterpreterConfig) {
    let version = interpreter.version();
    if interpreter.implementation() != PythonImplementation::CPython
        || version.major != 3
        || !MINORS.contains(&version.minor)
    {
        refuse(&format!("meinheld needs CPython 3.11 to 3.15, and this is Python {version}"));
    }
    if interpreter.is_free_threaded() {
        refuse("meinheld needs a CPython with the GIL, and this is a free-threaded build");
    }
}

/// The interpreter's include directories, which need not be one (Debian splits off `pyconfig.h`).
fn header_directories(interpreter: &InterpreterConfig) -> Vec<PathBuf> {
    if interpreter.executable().is_none() {
        refuse("no interpreter to ask for the CPython headers: set PYO3_PYTHON");
    }
    let script = "import sysconfig\n\
        print(sysconfig.get_path('include'))\n\
        print(sysconfig.get_path('platinclude'))";
    let answer = interpreter
        .run_python_script(script)
        .unwrap_or_else(|error| refuse(&format!("{error}: set PYO3_PYTHON")));
    let mut directories: Vec<PathBuf> = answer.lines().map(PathBuf::from).collect();
    directories.dedup();
    refuse_missing_headers(&directories);
    directories
}

fn refuse_missing_headers(directories: &[PathBuf]) {
    let found = |header: &str| directories.iter().any(|directory| directory.join(header).exists());
    if !HEADERS_NEEDED.iter().all(|header| found(header)) {
        let mut line = String::from("CPython headers not found in ");
        for directory in directories {
            let _ = write!(line, "{} ", directory.display());
        }
        refuse(&format!("{}: install python3-dev (python3-devel)", line.trim_end()));
    }
}

fn compile(directories: &[PathBuf]) {
    let mut build = cc::Build::new();
    build.file(Path::new(SOURCES).join("state.c")).file(UNWINDING).flag("-fexceptions");
    build.std("gnu11").warnings(true).extra_warnings(true);
    // The headers of Debian's debug builds are links to the others', but for pyconfig.h: to follow them
    // would find that of the others, too.
    build.flag_if_supported("-fno-canonical-system-headers");
    // As system headers, so that the warnings are about our code only.
    for directory in directories {
        for part in ["", "internal", "internal/mimalloc"] {
            build.flag("-isystem").flag(directory.join(part));
        }
    }
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        build.define("NDEBUG", None);
    }
    build.compile("meinheld_tstate");
}

fn refuse(reason: &str) -> ! {
    println!("cargo::error={reason}");
    exit(1)
}
