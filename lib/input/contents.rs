//! The images in archives, from the lists of their files: which are images, whose each label is, where
//! links lead. In WebDataset the files of one name up to its first dot are a sample, wherever they are:
//! `0001.jpg`, `0001.cls`, `0001.json`.

use super::hash::of_name;
use super::item::Class;
use super::members::{Cut, Member, MemberKind, normal};
use super::names::{base_name, is_hidden_path, is_image_name};
use super::notes::Notes;
use super::samples::{self, Label, stem};
use super::sidecar::{self, Said};
use crate::error::Result;
use std::collections::HashMap;
use std::io::Read;

/// A label file is short; a longer one is no label.
pub const MAX_LABEL: u64 = 1 << 20;
const NO_LABEL: u32 = u32::MAX;
const NOT_UTF8: &str = "a name that is not UTF-8";
/// So many links are followed to reach a file.
const MAX_HOPS: usize = 40;

/// All images of an input of archives. Each takes 32 bytes and its base name.
#[derive(Debug, Default)]
pub struct Contents {
    images: Vec<Image>,
    names: Vec<u8>,
    folders: Vec<String>,
    classes: Vec<Class>,
    class_numbers: HashMap<Class, u32>,
    faults: Vec<&'static str>,
    volumes: Vec<VolumeEnd>,
    notes: Notes,
}

#[derive(Debug, Clone, Copy)]
struct Image {
    at: u64,
    name: u64,
    /// Of 4 GB if it is larger.
    size: u32,
    folder: u32,
    class: u32,
    length: u16,
    /// 0: none; else the number of one, from 1.
    fault: u8,
    is_link: bool,
}

#[derive(Debug)]
struct VolumeEnd {
    images: usize,
    folders: usize,
    cut: Option<Cut>,
}

/// One image, as it was listed.
#[derive(Debug)]
pub struct Listed {
    pub name: String,
    /// The class that a label file names.
    pub class: Option<Class>,
    pub at: u64,
    pub size: u64,
    pub fault: Option<&'static str>,
}

impl Contents {
    /// How many images a volume has.
    pub fn count(&self, volume: usize) -> usize {
        self.volumes[volume].images - self.first(volume)
    }

    pub fn cut(&self, volume: usize) -> Option<&Cut> {
        self.volumes[volume].cut.as_ref()
    }

    /// The folders that hold images of a volume.
    pub fn folders(&self, volume: usize) -> &[String] {
        let first = volume.checked_sub(1).map_or(0, |before| self.volumes[before].folders);
        &self.folders[first..self.volumes[volume].folders]
    }

    fn first(&self, volume: usize) -> usize {
        volume.checked_sub(1).map_or(0, |before| self.volumes[before].images)
    }

    pub fn image(&self, volume: usize, nth: usize) -> Listed {
        let image = &self.images[self.first(volume) + nth];
        Listed {
            name: self.name(image),
            class: self.classes.get(image.class as usize).cloned(),
            at: image.at,
            size: image.size.into(),
            fault: (image.fault as usize).checked_sub(1).map(|fault| self.faults[fault]),
        }
    }

    /// How many images there are.
    pub fn count_all(&self) -> usize {
        self.images.len()
    }

    /// The path of an image by its number among all.
    pub fn name_of(&self, nth: usize) -> String {
        self.name(&self.images[nth])
    }

    fn name(&self, image: &Image) -> String {
        let base = &self.names[image.name as usize..][..image.length.into()];
        let base = String::from_utf8_lossy(base);
        match self.folders[image.folder as usize].as_str() {
            "" => base.into_owned(),
            folder => format!("{folder}/{base}"),
        }
    }

    /// Keeps those images from `first` on that `keep` selects, in place: a copy would double the memory.
    fn retain(&mut self, first: usize, mut keep: impl FnMut(&mut Image, &mut Notes) -> bool) {
        let mut kept = first;
        for nth in first..self.images.len() {
            let mut image = self.images[nth];
            if keep(&mut image, &mut self.notes) {
                self.images[kept] = image;
                kept += 1;
            }
        }
        self.images.truncate(kept);
    }

    fn class_number(&mut self, class: Class) -> u32 {
        let next = self.classes.len() as u32;
        match self.class_numbers.get(&class) {
            Some(&number) => number,
            None => {
                self.classes.push(class.clone());
                self.class_numbers.insert(class, next);
                next
            }
        }
    }

    fn fault_number(&mut self, fault: &'static str) -> u8 {
        let place = self.faults.iter().position(|f| *f == fault);
        let place = place.unwrap_or_else(|| {
            self.faults.push(fault);
            self.faults.len() - 1
        });
        place as u8 + 1
    }

    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Messages after all volumes are listed.
    pub fn finish(&mut self) {
        let labelled = self.images.iter().filter(|i| i.class != NO_LABEL).count();
        self.notes.images = self.images.len();
        self.notes.labelled = labelled;
        self.notes.cut = self.volumes.iter().any(|v| v.cut.is_some());
        self.class_numbers = HashMap::new();
        self.images.shrink_to_fit();
        self.names.shrink_to_fit();
    }
}

/// The list of one archive, file by file.
pub struct Listing<'a> {
    contents: &'a mut Contents,
    /// A folder that all its images are in, of their class.
    class: Option<&'a str>,
    /// The key of the label in JSON.
    label_key: Option<&'a str>,
    first: usize,
    folders: HashMap<String, u32>,
    sample: Sample,
    /// Labels whose images are not beside them, by the hash of the sample's name.
    apart: HashMap<u64, Vec<Label>>,
    links: Links,
}

/// What links are in an archive, by the hashes of their paths.
#[derive(Debug, Default)]
pub struct Links {
    targets: HashMap<u64, u64>,
    /// For links that are images by name: the target and, for messages, both paths.
    images: Vec<(u64, String)>,
}

/// The current sample.
#[derive(Debug, Default)]
struct Sample {
    stem: String,
    first: usize,
    labels: Vec<Label>,
    /// The keys of JSON without a label.
    nothing: Option<(String, bool)>,
}

impl<'a> Listing<'a> {
    pub fn new(
        contents: &'a mut Contents,
        class: Option<&'a str>,
        label_key: Option<&'a str>,
    ) -> Listing<'a> {
        let first = contents.images.len();
        Listing {
            contents,
            class,
            label_key,
            first,
            folders: HashMap::new(),
            sample: Sample::default(),
            apart: HashMap::new(),
            links: Links::default(),
        }
    }

    pub fn add(&mut self, member: Member, content: &mut dyn Read) -> Result<()> {
        let path = String::from_utf8_lossy(member.path).into_owned();
        let name = path.trim_start_matches("./").to_string();
        if is_hidden_path(&name) {
            return Ok(());
        }
        self.go_on_with(stem(&name));
        let target = match &member.kind {
            MemberKind::HardLink(target) => Some(normal("", &String::from_utf8_lossy(target))),
            MemberKind::SymbolicLink(target) => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                Some(normal(folder, &String::from_utf8_lossy(target)))
            }
            _ => None,
        };
        if let Some(target) = &target {
            self.links.targets.insert(of_name(&[&normal("", &name)]), of_name(&[target]));
        }
        if is_image_name(&name) && base_name(&name).len() <= usize::from(u16::MAX) {
            self.image(&name, &member, target);
        } else if member.kind == MemberKind::File && sidecar::is_label_name(&name) {
            self.label(&name, content);
        } else {
            self.contents.notes.other(&name);
        }
        Ok(())
    }

    fn image(&mut self, name: &str, member: &Member, target: Option<String>) {
        let base = base_name(name);
        let folder = name[..name.len() - base.len()].trim_end_matches('/');
        let folder = match self.class {
            Some(class) => format!("{class}/{folder}").trim_end_matches('/').to_string(),
            None => folder.to_string(),
        };
        let folder = match self.folders.get(&folder) {
            Some(&folder) => folder,
            None => {
                let number = self.contents.folders.len() as u32;
                self.contents.folders.push(folder.clone());
                self.folders.insert(folder, number);
                number
            }
        };
        let fault = match &member.kind {
            _ if std::str::from_utf8(member.path).is_err() => self.contents.fault_number(NOT_UTF8),
            MemberKind::Unread(why) => self.contents.fault_number(why),
            _ => 0,
        };
        let is_link = target.is_some();
        let at = if is_link { self.links.images.len() as u64 } else { member.at };
        if let Some(target) = target {
            let words = format!("{name:?}, a link to {target:?}");
            self.links.images.push((of_name(&[&target]), words));
        }
        self.contents.images.push(Image {
            at,
            name: self.contents.names.len() as u64,
            size: member.size.min(u32::MAX.into()) as u32,
            folder,
            class: NO_LABEL,
            length: base.len() as u16,
            fault,
            is_link,
        });
        self.contents.names.extend_from_slice(base.as_bytes());
    }

    fn label(&mut self, name: &str, content: &mut dyn Read) {
        let mut text = Vec::new();
        // If the archive is cut here, the list ends here.
        if content.take(MAX_LABEL).read_to_end(&mut text).is_err() {
            return;
        }
        match sidecar::read(name, &text, self.label_key) {
            Said::Nothing { keys, like_labels } => {
                self.sample.nothing.get_or_insert((keys, like_labels));
            }
            Said::Class(class) => {
                let is_damaged = matches!(class, Class::Bad(_)) && name.ends_with(".json");
                let class = self.contents.class_number(class);
                self.sample.labels.push(Label { name: name.to_string(), class, is_damaged });
            }
        }
    }

    /// Ends the sample unless the next file belongs to it.
    fn go_on_with(&mut self, stem: &str) {
        if self.sample.stem != stem {
            self.end_sample();
            self.sample.stem = stem.to_string();
            self.sample.first = self.contents.images.len();
        }
    }

    fn end_sample(&mut self) {
        let Sample { stem, first, labels, nothing } = std::mem::take(&mut self.sample);
        if let Some((keys, like_labels)) = nothing
            && first < self.contents.images.len()
        {
            self.contents.notes.no_label(keys, like_labels);
        }
        if labels.is_empty() {
            return;
        }
        let images: Vec<usize> = (first..self.contents.images.len()).collect();
        if images.is_empty() {
            self.apart.entry(of_name(&[&stem])).or_default().extend(labels);
        } else {
            let dropped = self.give(&images, &labels);
            self.leave_out(first, &dropped);
        }
    }

    /// Gives the images of a sample their labels, and returns the pictures that are not its images.
    fn give(&mut self, images: &[usize], labels: &[Label]) -> Vec<usize> {
        let names: Vec<String> =
            images.iter().map(|&i| self.contents.name(&self.contents.images[i])).collect();
        // Labels are named as the archive has them, without the class of an inner tar.
        let within = self.class.map_or(0, |class| class.len() + 1);
        let names: Vec<&str> = names.iter().map(|name| &name[within..]).collect();
        let (classes, several) = samples::classes(&names, labels);
        self.contents.notes.several += u64::from(several);
        let mut dropped = Vec::new();
        for (&image, class) in images.iter().zip(classes) {
            match class {
                Some(class) => self.contents.images[image].class = class,
                None => dropped.push(image),
            }
        }
        dropped
    }

    /// Leaves images out from `first` on; `dropped` is sorted.
    fn leave_out(&mut self, first: usize, dropped: &[usize]) {
        if dropped.is_empty() {
            return;
        }
        let mut nth = first;
        self.contents.retain(first, |_, _| {
            nth += 1;
            dropped.binary_search(&(nth - 1)).is_err()
        });
    }

    /// Finds the images of labels that are stored apart from them, and returns the links.
    pub fn end(&mut self) -> Links {
        self.end_sample();
        let apart = std::mem::take(&mut self.apart);
        let mut samples: HashMap<u64, Vec<usize>> = HashMap::new();
        if !apart.is_empty() {
            let within = self.class.map_or(0, |class| class.len() + 1);
            for i in self.first..self.contents.images.len() {
                let image = &self.contents.images[i];
                let name = self.contents.name(image);
                let sample = of_name(&[stem(&name[within..])]);
                if image.class == NO_LABEL && apart.contains_key(&sample) {
                    samples.entry(sample).or_default().push(i);
                }
            }
        }
        let mut dropped = Vec::new();
        for (sample, labels) in apart {
            match samples.get(&sample) {
                Some(images) => dropped.extend(self.give(images, &labels)),
                None => self.contents.notes.without_image(&labels),
            }
        }
        dropped.sort_unstable();
        self.leave_out(self.first, &dropped);
        std::mem::take(&mut self.links)
    }

    /// Ends the archive. `find`: place and size of the file with this hash of its path.
    pub fn finish(self, links: &Links, find: &dyn Fn(u64) -> Option<(u64, u64)>, cut: Option<Cut>) {
        let Listing { contents, first, .. } = self;
        contents.retain(first, |image, notes| {
            if !image.is_link {
                return true;
            }
            let (target, words) = &links.images[image.at as usize];
            let place = find(links.follow(*target));
            match place {
                Some((at, size)) => {
                    (image.at, image.size) = (at, size.min(u32::MAX.into()) as u32);
                }
                None => notes.dead_link(words),
            }
            place.is_some()
        });
        let (images, folders) = (contents.images.len(), contents.folders.len());
        contents.volumes.push(VolumeEnd { images, folders, cut });
    }
}

impl Links {
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// The path after following all links.
    fn follow(&self, mut path: u64) -> u64 {
        for _ in 0..MAX_HOPS {
            match self.targets.get(&path) {
                Some(&target) => path = target,
                None => break,
            }
        }
        path
    }

    /// Hashes of the paths that are looked for.
    pub fn wanted(&self) -> impl Iterator<Item = u64> + '_ {
        self.images.iter().map(|(target, _)| self.follow(*target))
    }
}
