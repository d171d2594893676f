//! Custom options, taken out of a parsed file: those that nothing declares cannot be compiled, and mean nothing on the wire.

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, UninterpretedOption,
};

/// Removes every custom option of a file; whether there was one.
pub(super) fn remove(file: &mut FileDescriptorProto) -> bool {
    let mut found = false;
    file.options.iter_mut().for_each(|options| bare(&mut options.uninterpreted_option, &mut found));
    file.message_type.iter_mut().for_each(|message| of_message(message, &mut found));
    file.enum_type.iter_mut().for_each(|declared| of_enum(declared, &mut found));
    file.extension.iter_mut().for_each(|field| of_field(field, &mut found));
    for service in &mut file.service {
        service.options.iter_mut().for_each(|options| bare(&mut options.uninterpreted_option, &mut found));
        let methods = service.method.iter_mut().flat_map(|method| &mut method.options);
        methods.for_each(|options| bare(&mut options.uninterpreted_option, &mut found));
    }
    found
}

/// An option is a custom one where a part of its name is that of an extension, which stands in parentheses.
fn bare(options: &mut Vec<UninterpretedOption>, found: &mut bool) {
    let before = options.len();
    options.retain(|option| !option.name.iter().any(|part| part.is_extension));
    *found |= options.len() < before;
}

fn of_field(field: &mut FieldDescriptorProto, found: &mut bool) {
    field.options.iter_mut().for_each(|options| bare(&mut options.uninterpreted_option, found));
}

fn of_enum(declared: &mut EnumDescriptorProto, found: &mut bool) {
    declared.options.iter_mut().for_each(|options| bare(&mut options.uninterpreted_option, found));
    let values = declared.value.iter_mut().flat_map(|value| &mut value.options);
    values.for_each(|options| bare(&mut options.uninterpreted_option, found));
}

fn of_message(message: &mut DescriptorProto, found: &mut bool) {
    message.options.iter_mut().for_each(|options| bare(&mut options.uninterpreted_option, found));
    message.field.iter_mut().chain(&mut message.extension).for_each(|field| of_field(field, found));
    let oneofs = message.oneof_decl.iter_mut().flat_map(|oneof| &mut oneof.options);
    oneofs.for_each(|options| bare(&mut options.uninterpreted_option, found));
    let ranges = message.extension_range.iter_mut().flat_map(|range| &mut range.options);
    ranges.for_each(|options| bare(&mut options.uninterpreted_option, found));
    message.enum_type.iter_mut().for_each(|declared| of_enum(declared, found));
    message.nested_type.iter_mut().for_each(|nested| of_message(nested, found));
}
