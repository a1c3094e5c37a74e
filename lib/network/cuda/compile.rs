//! Kernels from their source by NVRTC, for the architecture of one GPU. What was compiled is kept in a file of
//! the user's cache, so that the next program starts at once.

use super::libraries;
use super::status::failed;
use crate::error::Result;
use crate::network::engine::Precision;
use cudarc::nvrtc::{result, sys};
use std::ffi::{CStr, CString, c_char};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Bytes of the hash before the code in a file.
const HASH: usize = blake3::OUT_LEN;

/// Code for a GPU, and what the compiler says about it: registers and spills of each kernel.
pub struct Compiled {
    pub cubin: Vec<u8>,
    pub log: String,
}

/// What is compiled for what.
#[derive(Clone, Copy)]
pub struct Unit<'a> {
    pub source: &'a str,
    pub precision: Precision,
    /// Compute capability: 90 is 9.0.
    pub architecture: i32,
}

impl Unit<'_> {
    fn options(&self) -> [String; 4] {
        let precision = match self.precision {
            Precision::F32 => "-DS4L_F32",
            Precision::Bf16 => "-DS4L_BF16",
        };
        [
            format!("--gpu-architecture=sm_{}", self.architecture),
            precision.into(),
            "--std=c++17".into(),
            "--ptxas-options=-v".into(),
        ]
    }

    /// Of everything that the code depends on.
    fn key(&self) -> String {
        let text = [self.source, &self.options().join(" "), &libraries::nvrtc().to_string()];
        blake3::hash(text.join("\0").as_bytes()).to_hex().to_string()
    }

    pub fn compile(&self) -> Result<Compiled> {
        let source = CString::new(self.source).map_err(|e| failed(&e.to_string()))?;
        let program = Program::new(&source)?;
        // SAFETY: the program is there.
        let (done, log) = unsafe {
            (
                result::compile_program(program.raw, &self.options()),
                result::get_program_log(program.raw),
            )
        };
        let log = log.map_or(String::new(), |log| text(&log));
        done.map_err(|e| failed(&format!("nvrtcCompileProgram: {e}: {}", log.replace('\n', " "))))?;
        Ok(Compiled { cubin: program.cubin()?, log })
    }

    /// Code from the cache, or compiled and put there. A cache that cannot be used costs the compilation.
    pub fn cubin(&self) -> Result<Vec<u8>> {
        let file = cache(|name| std::env::var_os(name).map(PathBuf::from));
        let file = file.map(|folder| folder.join(format!("{}.cubin", self.key())));
        if let Some(cubin) = file.as_deref().and_then(read) {
            return Ok(cubin);
        }
        let cubin = self.compile()?.cubin;
        if let Some(file) = file {
            let _ = write(&file, &cubin);
        }
        Ok(cubin)
    }
}

/// A program of NVRTC.
struct Program {
    raw: sys::nvrtcProgram,
}

impl Program {
    fn new(source: &CStr) -> Result<Program> {
        let raw = result::create_program(source, Some(c"s4l.cu"));
        Ok(Program { raw: raw.map_err(|e| failed(&format!("nvrtcCreateProgram: {e}")))? })
    }

    fn cubin(&self) -> Result<Vec<u8>> {
        let mut bytes = 0;
        // SAFETY: the first call tells how many bytes the second one writes.
        let got = unsafe {
            let size = sys::nvrtcGetCUBINSize(self.raw, &mut bytes).result();
            let mut cubin = vec![0; bytes];
            size.and_then(|()| {
                sys::nvrtcGetCUBIN(self.raw, cubin.as_mut_ptr().cast::<c_char>()).result()
            })
            .map(|()| cubin)
        };
        got.map_err(|e| failed(&format!("nvrtcGetCUBIN: {e}")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: it was created, and is not used any more.
        let _ = unsafe { result::destroy_program(self.raw) };
    }
}

fn text(log: &[c_char]) -> String {
    let bytes: Vec<u8> = log.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).trim().to_string()
}

/// The folder for what can be made again, by the XDG base directory specification.
fn cache(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let given = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    Some(given.or_else(|| variable("HOME").map(|home| home.join(".cache")))?.join("s4l"))
}

/// The code in a file, unless it is damaged.
fn read(file: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(file).ok()?;
    let (hash, cubin) = bytes.split_at_checked(HASH)?;
    (blake3::hash(cubin).as_bytes()[..] == *hash).then(|| cubin.to_vec())
}

fn write(file: &Path, cubin: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(blake3::hash(cubin).as_bytes())?;
    temporary.write_all(cubin)?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_keeps_what_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/x.cubin");
        assert_eq!(read(&file), None);
        write(&file, b"code").unwrap();
        write(&file, b"code").unwrap();
        assert_eq!(read(&file).unwrap(), b"code");
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        let whole = std::fs::read(&file).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[..5], b""] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(read(&file), None);
        }
    }

    #[test]
    fn the_cache_is_where_the_user_has_it() {
        let with = |xdg: Option<&str>, home: Option<&str>| {
            let (xdg, home) = (xdg.map(PathBuf::from), home.map(PathBuf::from));
            cache(move |name| if name == "HOME" { home.clone() } else { xdg.clone() })
        };
        assert_eq!(with(Some("/x"), Some("/h")).unwrap(), Path::new("/x/s4l"));
        assert_eq!(with(Some("relative"), Some("/h")).unwrap(), Path::new("/h/.cache/s4l"));
        assert_eq!(with(None, Some("/h")).unwrap(), Path::new("/h/.cache/s4l"));
        assert_eq!(with(None, None), None);
    }
}
