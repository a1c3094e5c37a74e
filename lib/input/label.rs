//! The meaning of a label that is text or a number, the same in every format: whole numbers are numbers,
//! also as `3.0`; -1, NaN and an empty text mean unlabelled; other negative numbers, fractions and lists
//! are not labels.

use super::item::Class;
use std::collections::BTreeSet;

/// A number that text may be.
enum Number<'a> {
    /// Its digits.
    Whole(&'a str),
    Negative,
    MinusOne,
    Fraction,
}

/// `[-]<digits>[.<digits>]`; anything else is a name.
fn number(text: &str) -> Option<Number<'_>> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (digits, fraction) = text.split_once('.').unwrap_or((text, ""));
    let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if digits.is_empty() || !are_digits(digits) || !are_digits(fraction) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match (fraction.bytes().all(|b| b == b'0'), negative, value) {
        (false, ..) => Number::Fraction,
        (true, true, 1) => Number::MinusOne,
        (true, true, 1..) => Number::Negative,
        (true, ..) => Number::Whole(digits),
    })
}

/// A label of text that is the name of its class, be it a number.
pub fn of_text(text: &str) -> Class {
    let text = text.trim();
    match number(text) {
        Some(Number::Whole(digits)) => Class::Name(digits.to_string()),
        Some(Number::MinusOne) => Class::Unknown,
        Some(Number::Negative) => Class::Bad(format!("label {text}")),
        Some(Number::Fraction) => Class::Bad(format!("label {text}, not a whole number")),
        None if text.is_empty() || text.eq_ignore_ascii_case("nan") => Class::Unknown,
        None if text.starts_with('[') && text.ends_with(']') => {
            Class::Bad(format!("label {text}, a list"))
        }
        None => Class::Name(text.to_string()),
    }
}

/// A label of text in which numbers count the classes from 0.
pub fn counted(text: &str) -> Class {
    match of_text(text) {
        Class::Name(name) => match name.parse() {
            Ok(number) => Class::Index(number, None),
            Err(_) => Class::Name(name),
        },
        class => class,
    }
}

/// A number that counts the classes from 0.
pub fn of_integer(number: i64) -> Class {
    match u64::try_from(number) {
        Ok(number) => Class::Index(number, None),
        Err(_) if number == -1 => Class::Unknown,
        Err(_) => Class::Bad(format!("label {number}")),
    }
}

/// As `of_integer`.
pub fn of_float(number: f64) -> Class {
    if number.is_nan() {
        return Class::Unknown;
    }
    match number.fract() == 0.0 && number.abs() < 1e15 {
        true => of_integer(number as i64),
        false => Class::Bad(format!("label {number}, not a whole number")),
    }
}

/// A value of JSON: text is a name, a number counts.
pub fn of_json(value: &serde_json::Value) -> Class {
    match value {
        serde_json::Value::String(text) => of_text(text),
        serde_json::Value::Null => Class::Unknown,
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => of_integer(number),
            (None, Some(number)) => of_float(number),
            (None, None) => Class::Bad(format!("label {number}")),
        },
        serde_json::Value::Array(_) => Class::Bad(format!("label {value}, a list")),
        value => Class::Bad(format!("label {value}")),
    }
}

/// Whether an unknown key or column seems to hold labels, by its name.
pub fn is_like(name: &str) -> bool {
    const PARTS: [&str; 5] = ["label", "class", "cls", "category", "target"];
    let name = name.to_lowercase();
    PARTS.iter().any(|part| name.contains(part))
}

/// Whether all names are numbers.
pub fn are_numbers<'a>(mut names: impl Iterator<Item = &'a String>) -> bool {
    names.all(|name| name.parse::<u64>().is_ok())
}

/// Names in order: as numbers if all are numbers.
pub fn in_order(names: BTreeSet<String>) -> Vec<String> {
    let numbers = are_numbers(names.iter());
    let mut names: Vec<String> = names.into_iter().collect();
    if numbers {
        names.sort_by_key(|name| name.parse::<u64>().unwrap_or_default());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_mean_the_same_however_they_are_written() {
        let name = |text: &str| Class::Name(text.to_string());
        for (text, class) in [
            ("3", name("3")),
            ("3.0", name("3")),
            (" 10.", name("10")),
            ("cat", name("cat")),
            ("3.10.2", name("3.10.2")),
            ("1e3", name("1e3")),
            ("-1", Class::Unknown),
            ("-1.0", Class::Unknown),
            ("NaN", Class::Unknown),
            ("", Class::Unknown),
        ] {
            assert_eq!(of_text(text), class, "{text:?}");
        }
        for text in ["-2", "3.5", "[3]", "[1, 2]"] {
            assert!(matches!(of_text(text), Class::Bad(found) if found.contains(text)), "{text}");
        }
        assert_eq!(counted("3.0"), Class::Index(3, None));
        assert_eq!(of_float(3.0), Class::Index(3, None));
        assert_eq!(of_float(-1.0), Class::Unknown);
        assert_eq!(of_float(f64::NAN), Class::Unknown);
        assert!(matches!(of_float(0.5), Class::Bad(_)));
        let json = |text: &str| of_json(&serde_json::from_str(text).unwrap());
        assert_eq!(json("3.0"), Class::Index(3, None));
        assert_eq!(json("\"3\""), name("3"));
        assert_eq!(json("null"), Class::Unknown);
        assert!(matches!(json("[3]"), Class::Bad(_)));
        assert!(matches!(json("true"), Class::Bad(_)));
    }

    #[test]
    fn numbers_are_in_their_order() {
        let order = |names: &[&str]| in_order(names.iter().map(|n| n.to_string()).collect());
        assert_eq!(order(&["10", "2", "9"]), ["2", "9", "10"]);
        assert_eq!(order(&["10", "2", "b"]), ["10", "2", "b"]);
    }
}
