//! A file descriptor as text, so that what came as a descriptor can be read by people, and compared with what came as text.
//!
//! Types are printed with their full names. The normal form sorts imports, fields, enum values and options; messages keep
//! their order, because a serialized value names its message by its place.

use std::fmt::Write as _;

use prost_reflect::{
    DynamicMessage, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, FileDescriptor, Kind, MapKey,
    MessageDescriptor, ServiceDescriptor, Syntax, Value,
};
use prost_types::field_descriptor_proto::{Label, Type};

/// The text of a file.
pub(super) fn printed(file: &FileDescriptor, sorts: bool) -> String {
    let mut printer = Printer { text: String::new(), depth: 0, sorts };
    printer.file(file);
    printer.text
}

struct Printer {
    text: String,
    depth: usize,
    sorts: bool,
}

impl Printer {
    fn line(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        if !line.is_empty() {
            self.text.push_str(&"  ".repeat(self.depth));
            self.text.push_str(line);
        }
        self.text.push('\n');
    }

    fn block(&mut self, head: &str, body: impl FnOnce(&mut Self)) {
        self.line(format!("{head} {{"));
        self.depth += 1;
        body(self);
        self.depth -= 1;
        self.line("}");
    }

    fn file(&mut self, file: &FileDescriptor) {
        let proto = file.file_descriptor_proto();
        self.line(format!("syntax = \"{}\";", if file.syntax() == Syntax::Proto2 { "proto2" } else { "proto3" }));
        if !file.package_name().is_empty() {
            self.line(format!("package {};", file.package_name()));
        }
        let mut imports: Vec<String> = Vec::new();
        for (at, name) in proto.dependency.iter().enumerate() {
            let at = i32::try_from(at).unwrap_or(i32::MAX);
            let how = if proto.public_dependency.contains(&at) {
                "public "
            } else if proto.weak_dependency.contains(&at) {
                "weak "
            } else {
                ""
            };
            imports.push(format!("import {how}{};", quoted(name)));
        }
        if self.sorts {
            imports.sort();
        }
        for part in [imports, self.set(&file.options()).iter().map(|option| format!("option {option};")).collect()] {
            if !part.is_empty() {
                self.line("");
            }
            part.iter().for_each(|line| self.line(line));
        }
        if file.messages().len() + file.enums().len() > 0 {
            self.line("");
        }
        file.messages().for_each(|message| self.message(&message));
        file.enums().for_each(|listed| self.enumeration(&listed));
        self.extensions(file.extensions().collect());
        if file.services().len() > 0 {
            self.line("");
        }
        file.services().for_each(|service| self.service(&service));
    }

    fn options(&mut self, options: &DynamicMessage) {
        self.set(options).into_iter().for_each(|option| self.line(format!("option {option};")));
    }

    /// Options as `name = value`.
    fn set(&self, options: &DynamicMessage) -> Vec<String> {
        let plain = options.fields().map(|(field, value)| (field.name().to_owned(), field.kind(), value));
        let own = options.extensions().map(|(field, value)| (format!("({})", field.full_name()), field.kind(), value));
        let mut set: Vec<String> = Vec::new();
        for (name, kind, value) in plain.chain(own).filter(|(name, ..)| name != "uninterpreted_option") {
            match value {
                Value::List(items) => set.extend(items.iter().map(|item| format!("{name} = {}", literal(item, &kind)))),
                value => set.push(format!("{name} = {}", literal(value, &kind))),
            }
        }
        // A descriptor's options have no order of their own.
        set.sort();
        set
    }

    fn bracketed(&self, mut parts: Vec<String>, options: &DynamicMessage) -> String {
        parts.extend(self.set(options));
        if parts.is_empty() { String::new() } else { format!(" [{}]", parts.join(", ")) }
    }

    fn message(&mut self, message: &MessageDescriptor) {
        self.block(&format!("message {}", message.name()), |printer| printer.body(message));
    }

    fn body(&mut self, message: &MessageDescriptor) {
        self.options(&message.options());
        let proto = message.descriptor_proto();
        let mut reserved: Vec<(i32, i32)> =
            proto.reserved_range.iter().map(|range| (range.start(), range.end())).collect();
        let mut names = proto.reserved_name.clone();
        if self.sorts {
            reserved.sort_unstable();
            names.sort();
        }
        for (start, end) in reserved {
            self.line(format!("reserved {};", span(start, end - 1, (1 << 29) - 1)));
        }
        names.iter().for_each(|name| self.line(format!("reserved {};", quoted(name))));
        for range in &proto.extension_range {
            self.line(format!("extensions {};", span(range.start(), range.end() - 1, (1 << 29) - 1)));
        }
        self.fields(message);
        let groups: Vec<String> =
            message.fields().filter(FieldDescriptor::is_group).map(|field| type_name(&field.kind())).collect();
        for nested in message.child_messages().filter(|nested| !nested.is_map_entry()) {
            if !groups.contains(&format!(".{}", nested.full_name())) {
                self.message(&nested);
            }
        }
        message.child_enums().for_each(|listed| self.enumeration(&listed));
        self.extensions(message.child_extensions().collect());
    }

    /// Fields in the order of the file, in the normal form by their numbers; a `oneof` stands where its first field does.
    fn fields(&mut self, message: &MessageDescriptor) {
        let proto = message.descriptor_proto();
        let mut numbers: Vec<i32> = proto.field.iter().map(prost_types::FieldDescriptorProto::number).collect();
        if self.sorts {
            numbers.sort_unstable();
        }
        let mut done = Vec::new();
        for number in numbers {
            let Some(field) = message.get_field(number.unsigned_abs()) else { continue };
            match field.containing_oneof().filter(|one| !one.is_synthetic()) {
                None => self.field(&field, false),
                Some(one) if done.contains(&one.name().to_owned()) => {}
                Some(one) => {
                    done.push(one.name().to_owned());
                    let mut cases: Vec<FieldDescriptor> = one.fields().collect();
                    if self.sorts {
                        cases.sort_by_key(FieldDescriptor::number);
                    }
                    self.block(&format!("oneof {}", one.name()), |printer| {
                        printer.options(&one.options());
                        cases.iter().for_each(|case| printer.field(case, true));
                    });
                }
            }
        }
    }

    fn field(&mut self, field: &FieldDescriptor, is_case: bool) {
        let proto = field.field_descriptor_proto();
        let mut parts = Vec::new();
        if let Some(default) = &proto.default_value {
            let words = matches!(proto.r#type(), Type::String | Type::Bytes);
            parts.push(format!("default = {}", if words { quoted(default) } else { default.clone() }));
        }
        if proto.json_name.as_ref().is_some_and(|name| *name != camel(field.name())) {
            parts.push(format!("json_name = {}", quoted(field.json_name())));
        }
        let options = self.bracketed(parts, &field.options());
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return };
            let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
            let head = format!("map<{}, {}>", type_name(&key), type_name(&value));
            self.line(format!("{head} {} = {}{options};", field.name(), field.number()));
            return;
        }
        let is_proto2 = field.parent_file().syntax() == Syntax::Proto2;
        let label = match proto.label() {
            _ if is_case => "",
            Label::Repeated => "repeated ",
            Label::Required => "required ",
            Label::Optional if is_proto2 || proto.proto3_optional() => "optional ",
            Label::Optional => "",
        };
        match field.kind() {
            Kind::Message(group) if field.is_group() => {
                let head = format!("{label}group {} = {}{options}", group.name(), field.number());
                self.block(&head, |printer| printer.body(&group));
            }
            kind => self.line(format!("{label}{} {} = {}{options};", type_name(&kind), field.name(), field.number())),
        }
    }

    fn extensions(&mut self, extensions: Vec<ExtensionDescriptor>) {
        for extension in extensions {
            let proto = extension.field_descriptor_proto();
            let label = match proto.label() {
                Label::Repeated => "repeated ",
                Label::Required => "required ",
                Label::Optional if extension.parent_file().syntax() == Syntax::Proto2 || proto.proto3_optional() => {
                    "optional "
                }
                Label::Optional => "",
            };
            let mut parts = Vec::new();
            if let Some(default) = &proto.default_value {
                let words = matches!(proto.r#type(), Type::String | Type::Bytes);
                parts.push(format!("default = {}", if words { quoted(default) } else { default.clone() }));
            }
            let options = self.bracketed(parts, &extension.options());
            let line = format!(
                "{label}{} {} = {}{options};",
                type_name(&extension.kind()),
                extension.name(),
                extension.number()
            );
            let head = format!("extend .{}", extension.containing_message().full_name());
            self.block(&head, |printer| printer.line(line));
        }
    }

    fn enumeration(&mut self, listed: &EnumDescriptor) {
        let proto = listed.enum_descriptor_proto().clone();
        let options = listed.options();
        // In the order of the file: two names of one number have no other.
        let mut values: Vec<_> =
            proto.value.iter().filter_map(|value| listed.get_value_by_name(value.name())).collect();
        if self.sorts {
            // The first one is the default, and stays the first.
            let first = values.first().map(prost_reflect::EnumValueDescriptor::number);
            values.sort_by_key(|value| (Some(value.number()) != first, value.number(), value.name().to_owned()));
        }
        self.block(&format!("enum {}", listed.name()), |printer| {
            printer.options(&options);
            for range in &proto.reserved_range {
                printer.line(format!("reserved {};", span(range.start(), range.end(), i32::MAX)));
            }
            proto.reserved_name.iter().for_each(|name| printer.line(format!("reserved {};", quoted(name))));
            for value in values {
                let options = printer.bracketed(Vec::new(), &value.options());
                printer.line(format!("{} = {}{options};", value.name(), value.number()));
            }
        });
    }

    fn service(&mut self, service: &ServiceDescriptor) {
        self.block(&format!("service {}", service.name()), |printer| {
            printer.options(&service.options());
            for method in service.methods() {
                let stream = |streams: bool| if streams { "stream " } else { "" };
                let head = format!(
                    "rpc {} ({}.{}) returns ({}.{})",
                    method.name(),
                    stream(method.is_client_streaming()),
                    method.input().full_name(),
                    stream(method.is_server_streaming()),
                    method.output().full_name()
                );
                let options = method.options();
                if printer.set(&options).is_empty() {
                    printer.line(format!("{head};"));
                } else {
                    printer.block(&head, |printer| printer.options(&options));
                }
            }
        });
    }
}

/// `5`, `5 to 7` or `5 to max`.
fn span(start: i32, end: i32, most: i32) -> String {
    match end {
        end if end == start => start.to_string(),
        end if end >= most => format!("{start} to max"),
        end => format!("{start} to {end}"),
    }
}

/// A type as a field names it.
pub(super) fn type_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => format!(".{}", message.full_name()),
        Kind::Enum(listed) => format!(".{}", listed.full_name()),
        Kind::Double => "double".to_owned(),
        Kind::Float => "float".to_owned(),
        Kind::Int32 => "int32".to_owned(),
        Kind::Int64 => "int64".to_owned(),
        Kind::Uint32 => "uint32".to_owned(),
        Kind::Uint64 => "uint64".to_owned(),
        Kind::Sint32 => "sint32".to_owned(),
        Kind::Sint64 => "sint64".to_owned(),
        Kind::Fixed32 => "fixed32".to_owned(),
        Kind::Fixed64 => "fixed64".to_owned(),
        Kind::Sfixed32 => "sfixed32".to_owned(),
        Kind::Sfixed64 => "sfixed64".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::String => "string".to_owned(),
        Kind::Bytes => "bytes".to_owned(),
    }
}

fn literal(value: &Value, kind: &Kind) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::F32(value) => value.to_string(),
        Value::F64(value) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Bytes(bytes) => bytes_quoted(bytes),
        Value::EnumNumber(number) => {
            let name = kind.as_enum().and_then(|listed| listed.get_value(*number));
            name.map_or_else(|| number.to_string(), |value| value.name().to_owned())
        }
        Value::Message(message) => format!("{{ {} }}", message.to_text_format()),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| literal(item, kind)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(entries) => {
            let mut entries: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{{ key: {} value: {} }}", key_literal(key), literal(value, kind)))
                .collect();
            entries.sort();
            format!("[{}]", entries.join(", "))
        }
    }
}

fn key_literal(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => quoted(text),
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(value) => value.to_string(),
        MapKey::I64(value) => value.to_string(),
        MapKey::U32(value) => value.to_string(),
        MapKey::U64(value) => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    bytes_quoted(text.as_bytes())
}

fn bytes_quoted(bytes: &[u8]) -> String {
    let text = std::str::from_utf8(bytes).ok();
    let mut quoted = String::from("\"");
    for character in text.into_iter().flat_map(str::chars) {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other if other.is_control() => {
                let mut buffer = [0; 4];
                for byte in other.encode_utf8(&mut buffer).bytes() {
                    let _ = write!(quoted, "\\{byte:03o}");
                }
            }
            other => quoted.push(other),
        }
    }
    for byte in bytes.iter().filter(|_| text.is_none()) {
        let _ = write!(quoted, "\\{byte:03o}");
    }
    quoted.push('"');
    quoted
}

/// The JSON name that a field has by itself.
fn camel(name: &str) -> String {
    let mut made = String::new();
    let mut up = false;
    for character in name.chars() {
        match character {
            '_' => up = true,
            other if up => {
                made.extend(other.to_uppercase());
                up = false;
            }
            other => made.push(other),
        }
    }
    made
}
