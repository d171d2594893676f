//! Protocol Buffers: proto2 and proto3, as text or as a file descriptor in Base64, which Python's and JavaScript's serializers
//! send.
//!
//! `protox` parses and compiles; the well-known types are there without being registered. A text is kept as it was sent, with
//! its comments; a descriptor is kept as the text that [`print`] makes of it. Two schemas are the same where their printed
//! forms are; where a text has options that nothing declares, which Confluent's registry takes, where their texts are.

mod known;
mod options;
mod print;
mod wire;

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::{
    Message as _,
    encoding::{DecodeContext, decode_key, skip_field},
};
use prost_reflect::{DescriptorPool, FileDescriptor};
use prost_types::FileDescriptorProto;
use protox::{
    Compiler, Error,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
};

pub(super) use self::wire::differences;
use super::Resolved;

/// The name of a file that has none.
const NAME: &str = "default";

/// A compiled file with what it imports.
#[derive(Debug)]
pub struct Schema {
    pool: DescriptorPool,
    name: String,
    /// None where it came as a descriptor.
    text: Option<String>,
    /// Whether options that nothing declares were left out of what was compiled.
    is_part: bool,
}

/// What a file is read from.
#[derive(Clone, Debug)]
enum Stored {
    Text(String),
    /// A descriptor as it came: custom options are kept in its bytes only.
    Descriptor(Vec<u8>),
    /// What was parsed of a text, without custom options.
    Bare(Box<FileDescriptorProto>),
}

impl Stored {
    /// A text, or a descriptor in Base64.
    fn read(name: &str, text: &str) -> Result<Self, String> {
        let why = match File::from_source(name, text) {
            Ok(_) => return Ok(Self::Text(text.to_owned())),
            Err(error) => told(&error),
        };
        let bytes = STANDARD.decode(text.trim()).ok();
        let readable = |bytes: &Vec<u8>| {
            FileDescriptorProto::decode(bytes.as_slice()).is_ok_and(|proto| proto != FileDescriptorProto::default())
        };
        bytes.filter(readable).map(Self::Descriptor).ok_or(why)
    }

    /// The name that a descriptor brings.
    fn own_name(&self) -> Option<String> {
        let Self::Descriptor(bytes) = self else { return None };
        FileDescriptorProto::decode(bytes.as_slice()).ok()?.name.filter(|name| !name.is_empty())
    }

    fn open(&self, name: &str) -> Result<File, Error> {
        match self {
            Self::Text(text) => File::from_source(name, text),
            Self::Descriptor(bytes) => {
                File::decode_file_descriptor_proto(renamed(bytes, name).as_slice()).map_err(Error::new)
            }
            Self::Bare(parsed) => Ok(File::from_file_descriptor_proto((**parsed).clone())),
        }
    }

    /// The same without custom options, where there are any in a text.
    fn bare(&self, name: &str) -> Option<Self> {
        let Self::Text(text) = self else { return None };
        let mut parsed = File::from_source(name, text).ok()?.file_descriptor_proto().clone();
        options::remove(&mut parsed).then(|| Self::Bare(Box::new(parsed)))
    }
}

/// The files of a registration by the paths that they are imported under.
#[derive(Clone)]
struct Files(HashMap<String, Stored>);

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        self.0.get(name).ok_or_else(|| Error::file_not_found(name))?.open(name)
    }
}

impl Files {
    /// The same without custom options, where there are any.
    fn bare(&self) -> Option<Self> {
        let mut changed = false;
        let files = self.0.iter().map(|(name, stored)| {
            let bare = stored.bare(name);
            changed |= bare.is_some();
            (name.clone(), bare.unwrap_or_else(|| stored.clone()))
        });
        let files = Self(files.collect());
        changed.then_some(files)
    }

    fn compile(self, name: &str) -> Result<DescriptorPool, Error> {
        let mut chain = ChainFileResolver::new();
        chain.add(self);
        chain.add(GoogleFileResolver::new());
        chain.add(known::Known);
        let mut compiler = Compiler::with_file_resolver(chain);
        compiler.include_imports(true).open_file(name)?;
        Ok(compiler.descriptor_pool())
    }
}

impl Schema {
    pub(super) fn parse(text: &str, references: &[Resolved]) -> Result<Self, String> {
        let mut files = HashMap::new();
        for reference in references {
            let read = Stored::read(&reference.name, &reference.text);
            files.insert(reference.name.clone(), read.map_err(|why| format!("{}: {why}", reference.name))?);
        }
        let root = Stored::read(NAME, text)?;
        let name = root.own_name().unwrap_or_else(|| NAME.to_owned());
        let own = matches!(root, Stored::Text(_)).then(|| text.trim_end().to_owned());
        if files.insert(name.clone(), root).is_some() {
            return Err(format!("the schema and one of its references are both called {name}"));
        }
        let files = Files(files);
        let bare = || files.bare()?.compile(&name).ok();
        let (pool, is_part) = match files.clone().compile(&name) {
            Ok(pool) => (pool, false),
            Err(error) => (bare().ok_or_else(|| told(&error))?, true),
        };
        Ok(Self { pool, name, text: own, is_part })
    }

    fn file(&self) -> FileDescriptor {
        self.pool.get_file_by_name(&self.name).expect("it was compiled under that name")
    }

    pub(super) fn text(&self) -> String {
        self.text.clone().unwrap_or_else(|| self.printed())
    }

    pub(super) fn printed(&self) -> String {
        self.whole().unwrap_or_else(|| print::printed(&self.file(), false))
    }

    pub(super) fn normal(&self) -> String {
        self.whole().unwrap_or_else(|| print::printed(&self.file(), true))
    }

    /// The text, where what was compiled is not all of it.
    fn whole(&self) -> Option<String> {
        self.text.clone().filter(|_| self.is_part)
    }

    pub(super) fn serialized(&self) -> String {
        STANDARD.encode(without_places(&self.file().encode_to_vec()))
    }
}

/// The bytes of a descriptor with another name behind its own: of a field that stands twice, the last one counts.
fn renamed(bytes: &[u8], name: &str) -> Vec<u8> {
    let named = FileDescriptorProto { name: Some(name.to_owned()), ..FileDescriptorProto::default() };
    [bytes, named.encode_to_vec().as_slice()].concat()
}

/// The number of `source_code_info` in a file descriptor.
const PLACES: u32 = 9;

/// The bytes of a descriptor without where each part stood in a text.
fn without_places(bytes: &[u8]) -> Vec<u8> {
    let (mut left, mut kept) = (bytes, Vec::with_capacity(bytes.len()));
    while !left.is_empty() {
        let from = left;
        let Ok((tag, kind)) = decode_key(&mut left) else { break };
        if skip_field(kind, tag, &mut left, DecodeContext::default()).is_err() {
            break;
        }
        if tag != PLACES {
            kept.extend_from_slice(&from[..from.len() - left.len()]);
        }
    }
    kept
}

/// What the compiler says, with the place where it says one.
fn told(error: &Error) -> String {
    let words = format!("{error:?}");
    let words = words.trim();
    if words.is_empty() || words.len() > 400 { error.to_string() } else { words.to_owned() }
}

#[cfg(test)]
mod tests;
