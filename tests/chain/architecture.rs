//! The shape of `lib/`: no cyclic imports between its files, no long file, no long function.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

const FILE_LINES: usize = 450;
const FUNCTION_LINES: usize = 60;

/// Longer functions that are a table or a kernel and cannot be split into named parts.
const LONG_FUNCTIONS: [(&str, &str); 1] = [("network/cpu/convolve.rs", "finish")];

/// A module of the library: the names on its path from the root, without `crate`.
type Module = Vec<String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lib")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

/// `lib/a/b.rs` and `lib/a/b/mod.rs` are the module `a::b`.
fn module(file: &Path) -> Module {
    let path = file.strip_prefix(root()).unwrap().with_extension("");
    let mut names: Module = path.iter().map(|part| part.to_str().unwrap().to_string()).collect();
    if names.last().is_some_and(|last| last == "mod" || names.len() == 1 && last == "lib") {
        names.pop();
    }
    names
}

/// A parsed file of the library.
struct Source {
    path: String,
    module: Module,
    lines: usize,
    syntax: syn::File,
}

fn sources() -> Vec<Source> {
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        Source {
            path: file.strip_prefix(root()).unwrap().to_str().unwrap().to_string(),
            module: module(&file),
            lines: text.lines().count(),
            syntax: syn::parse_file(&text).unwrap(),
        }
    };
    files(&root()).into_iter().map(read).collect()
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("cfg") && a.parse_args::<syn::Ident>().is_ok_and(|name| name == "test")
    })
}

/// The names of other modules that a file uses outside its tests.
struct Imports<'a> {
    modules: &'a BTreeSet<Module>,
    own: &'a Module,
    children: BTreeSet<String>,
    found: BTreeSet<Module>,
}

impl Imports<'_> {
    fn add(&mut self, path: &[String]) {
        let mut full = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("self" | "super") => self.own.clone(),
            Some(first) if self.children.contains(first) => {
                let mut full = self.own.clone();
                full.push(first.to_string());
                full
            }
            _ => return,
        };
        for name in &path[1..] {
            full.push(name.clone());
        }
        if path[0] == "super" {
            let names = full.split_off(self.own.len());
            full.pop();
            let above = names.iter().take_while(|name| *name == "super").count();
            full.truncate(full.len() - above);
            full.extend(names.into_iter().skip(above));
        }
        while !self.modules.contains(&full) && full.pop().is_some() {}
        if !full.is_empty() && full != *self.own {
            self.found.insert(full);
        }
    }

    fn add_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.add_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.add(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.add(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.add(before),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_tree(before, tree));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Imports<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.add_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if names.len() > 1 {
            self.add(&names);
        }
        visit::visit_path(self, path);
    }
}

fn imports(source: &Source, modules: &BTreeSet<Module>) -> BTreeSet<Module> {
    let declared = source.syntax.items.iter().filter_map(|item| match item {
        syn::Item::Mod(item) if item.content.is_none() => Some(item.ident.to_string()),
        _ => None,
    });
    let mut imports = Imports {
        modules,
        own: &source.module,
        children: declared.collect(),
        found: BTreeSet::new(),
    };
    imports.visit_file(&source.syntax);
    imports.found
}

/// Everything reachable from `from`.
fn reach(graph: &BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&Module> = graph[from].iter().collect();
    while let Some(module) = open.pop() {
        if seen.insert(module.clone()) {
            open.extend(&graph[module]);
        }
    }
    seen
}

#[test]
fn imports_have_no_circle() {
    let sources = sources();
    let modules: BTreeSet<Module> = sources.iter().map(|s| s.module.clone()).collect();
    let graph: BTreeMap<Module, BTreeSet<Module>> =
        sources.iter().map(|s| (s.module.clone(), imports(s, &modules))).collect();
    let arrows: usize = graph.values().map(BTreeSet::len).sum();
    assert!(arrows > sources.len(), "only {arrows} imports seen: this test reads them wrongly");
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        graph.keys().map(|module| (module, reach(&graph, module))).collect();
    let mut circles = Vec::new();
    for (from, found) in &graph {
        for to in found.iter().filter(|to| reached[to].contains(from)) {
            circles.push(format!("{} -> {}", from.join("::"), to.join("::")));
        }
    }
    assert!(circles.is_empty(), "imports in a circle:\n{}", circles.join("\n"));
}

#[test]
fn files_are_short() {
    let sources = sources();
    let long = sources.iter().filter(|s| s.lines > FILE_LINES);
    let long: Vec<String> = long.map(|s| format!("{} {}", s.path, s.lines)).collect();
    assert!(long.is_empty(), "files above {FILE_LINES} lines:\n{}", long.join("\n"));
}

#[derive(Default)]
struct Functions(Vec<(String, usize)>);

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line - signature.span().start().line + 1;
        self.0.push((signature.ident.to_string(), lines));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }
}

#[test]
fn functions_are_short() {
    let mut long = Vec::new();
    for source in sources() {
        let mut functions = Functions::default();
        functions.visit_file(&source.syntax);
        assert!(functions.0.iter().all(|(_, lines)| *lines > 0), "{}", source.path);
        for (name, lines) in functions.0 {
            let excused = LONG_FUNCTIONS.contains(&(&source.path[..], &name[..]));
            if lines > FUNCTION_LINES && !excused {
                long.push(format!("{} {name} {lines}", source.path));
            }
        }
    }
    assert!(long.is_empty(), "functions above {FUNCTION_LINES} lines:\n{}", long.join("\n"));
}

/// docs/UNSAFE.md names exactly the files with unsafe code.
#[test]
fn unsafe_code_is_listed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/UNSAFE.md");
    let list = std::fs::read_to_string(path).unwrap();
    let rows = list.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let listed: BTreeSet<String> =
        rows.skip(1).flat_map(|cell| cell.split(", ")).map(|name| name.replace('`', "")).collect();
    let files = files(&root()).into_iter();
    let with_unsafe = files.filter(|file| {
        let text = std::fs::read_to_string(file).unwrap();
        ["unsafe {", "unsafe impl", "unsafe fn"].iter().any(|words| text.contains(words))
    });
    let found: BTreeSet<String> =
        with_unsafe.map(|file| file.strip_prefix(root()).unwrap().display().to_string()).collect();
    assert_eq!(found, listed);
}

/// A file of tests that no main.rs names would not be compiled.
#[test]
fn every_file_of_tests_runs() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let folders = std::fs::read_dir(&tests).unwrap().map(|entry| entry.unwrap().path());
    let mut groups = 0;
    for main in folders.map(|folder| folder.join("main.rs")).filter(|main| main.is_file()) {
        groups += 1;
        let text = std::fs::read_to_string(&main).unwrap();
        for file in files(main.parent().unwrap()) {
            let name = file.file_stem().unwrap().to_str().unwrap();
            let named = text.lines().any(|line| line == format!("mod {name};"));
            assert!(named || name == "main", "{} has no line for {name}", main.display());
        }
    }
    assert_eq!(groups, 5);
}
