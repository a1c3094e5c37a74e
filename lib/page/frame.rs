//! The frame of a page: its head, colours and theme switch. A page loads no other file.

use crate::artifact;
use crate::cli::{self, Output};
use crate::error::{Error, Result};
use std::path::Path;

/// Text that is safe in HTML and SVG, also in attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A section of a page: its heading, and a note on how to read it.
pub fn section(title: &str, note: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n<p>{note}</p>\n{content}\n</section>")
}

/// A page of one file.
pub struct Page<'a> {
    /// The command that writes this kind of page.
    pub generator: &'static str,
    pub title: &'static str,
    /// Largest width in pixels.
    pub width: u32,
    /// The HTML after the heading.
    pub body: &'a str,
}

/// The theme switch. It needs no script.
const THEME: &str = "<fieldset class=theme><legend>Theme</legend>\
    <label><input type=radio name=theme id=theme-auto checked>Auto</label>\
    <label><input type=radio name=theme id=theme-light>Light</label>\
    <label><input type=radio name=theme id=theme-dark>Dark</label></fieldset>\n";

impl Page<'_> {
    /// The first bytes of every page of this kind.
    fn mark(&self) -> String {
        format!(
            "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
             <meta name=generator content='{}'>\n",
            self.generator
        )
    }

    pub fn html(&self) -> String {
        format!(
            "{}<meta name=viewport content='width=device-width, initial-scale=1'>\n\
             <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src data:; \
             style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
             <title>{}</title>\n<style>\n{}body {{ max-width: {}px; }}\n</style>\n{THEME}<h1>{1}</h1>\n{}\
             <footer>Written by {} {}.</footer>\n<script>\n{}</script>\n</html>\n",
            self.mark(),
            self.title,
            include_str!("page.css"),
            self.width,
            self.body,
            self.generator,
            env!("CARGO_PKG_VERSION"),
            include_str!("page.js"),
        )
    }

    /// Writes the page to a file.
    ///
    /// Errors: `Exists` for another page of this kind, unless it may be replaced; `NotOurs` for any other
    /// file.
    pub fn write(&self, out: &Path, output: &Output) -> Result<()> {
        let html = self.html();
        match self.found(out)? {
            Some(found) if found == html.as_bytes() => {
                cli::info(&format!("{}: up to date", out.display()));
                Ok(())
            }
            Some(_) if !output.may_replace() => Err(Error::Exists { path: out.to_path_buf() }),
            _ => artifact::write_bytes(out, html.as_bytes()),
        }
    }

    /// The existing page of this kind.
    fn found(&self, out: &Path) -> Result<Option<Vec<u8>>> {
        let Some(found) = artifact::look(out)? else {
            return Ok(None);
        };
        let bytes = match found.is_file() {
            true => std::fs::read(out).map_err(Error::io(out))?,
            false => Vec::new(),
        };
        match bytes.starts_with(self.mark().as_bytes()) {
            true => Ok(Some(bytes)),
            false => {
                let what = format!("a page of {}", self.generator);
                Err(Error::NotOurs { path: out.to_path_buf(), what })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
