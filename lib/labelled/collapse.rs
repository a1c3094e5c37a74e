//! Whether pseudo labels collapse: a model that was trained too little gives most images one label.

use indicatif::HumanCount;

/// So many times its share, or half of what is above its share, is far more than a class should take.
const TIMES: f64 = 3.0;
/// So few images of a class may be many or none by chance.
const FEW: f64 = 5.0;
/// Classes that are named.
const NAMED: usize = 3;

/// How many labels a class would have at its share of the labelled set; without a labelled set all classes have the same share.
fn expected(pseudo: &[u64], labelled: &[u64]) -> Vec<f64> {
    let (all, known): (u64, u64) = (pseudo.iter().sum(), labelled.iter().sum());
    let share = |&images: &u64| match known {
        0 => 1.0 / labelled.len() as f64,
        _ => images as f64 / known as f64,
    };
    labelled.iter().map(|images| share(images) * all as f64).collect()
}

/// Whether a class has far more labels than expected, of `all`: more than three times as many, or more
/// than halfway from there to all of them.
fn takes_too_many(labels: u64, expected: f64, all: u64) -> bool {
    let expected = expected.max(FEW);
    labels as f64 > (TIMES * expected).min((all as f64 + expected) / 2.0)
}

/// A collapse in words, of the labels of each class and those of the labelled set: which class has far more
/// than its share, if one has, and which have none though five would be theirs.
pub fn words(classes: &[String], pseudo: &[u64], labelled: &[u64]) -> Option<String> {
    let all: u64 = pseudo.iter().sum();
    let expected = expected(pseudo, labelled);
    let most = (0..classes.len())
        .filter(|&class| takes_too_many(pseudo[class], expected[class], all))
        .max_by_key(|&class| (pseudo[class], std::cmp::Reverse(class)));
    let none = (0..classes.len()).filter(|&class| pseudo[class] == 0 && expected[class] >= FEW);
    let none: Vec<usize> = none.collect();
    let most = most.map(|class| {
        let (labels, all) = (HumanCount(pseudo[class]), HumanCount(all));
        let expected = expected[class];
        format!(
            "{labels} of {all} pseudo labels are {:?}, its share is {expected:.0}",
            classes[class]
        )
    });
    let none = (!none.is_empty()).then(|| {
        let named = none.iter().take(NAMED).map(|&class| format!("{:?}", classes[class]));
        let more = if none.len() > NAMED { ", .." } else { "" };
        let (n, names) = (none.len(), named.collect::<Vec<_>>().join(", "));
        format!("{n} of {} classes have none: {names}{more}", classes.len())
    });
    let words: Vec<String> = most.into_iter().chain(none).collect();
    (!words.is_empty()).then(|| words.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pseudo: &[u64], labelled: &[u64]) -> Option<String> {
        let classes: Vec<String> = (0..pseudo.len()).map(|class| format!("c{class}")).collect();
        words(&classes, pseudo, labelled)
    }

    #[test]
    fn a_class_with_three_times_its_share_is_named() {
        assert_eq!(of(&[90, 70, 70, 70], &[10; 4]), None);
        // Three times a tenth of 400 is 120; the uneven shares of the labelled set are kept.
        let mut ten = [31; 10];
        ten[3] = 119;
        assert_eq!(of(&ten, &[10; 10]), None);
        ten[3] = 122;
        ten[4] = 30;
        let words = of(&ten, &[10; 10]).unwrap();
        assert_eq!(words, "122 of 400 pseudo labels are \"c3\", its share is 40");
        let mut uneven = [10; 10];
        uneven[3] = 40;
        assert_eq!(of(&ten, &uneven), None);
    }

    #[test]
    fn of_two_classes_three_quarters_are_too_many() {
        assert_eq!(of(&[75, 25], &[1, 1]), None);
        assert_eq!(
            of(&[76, 24], &[0, 0]).unwrap(),
            "76 of 100 pseudo labels are \"c0\", its share is 50"
        );
    }

    #[test]
    fn classes_without_a_label_are_counted_unless_few_are_theirs() {
        let words = of(&[10, 10, 0, 0, 0, 0], &[1; 6]);
        assert_eq!(words, None, "three of each");
        let words = of(&[90, 90, 90, 0, 0, 0, 0], &[1; 7]).unwrap();
        assert_eq!(words, "4 of 7 classes have none: \"c3\", \"c4\", \"c5\", ..");
        assert_eq!(of(&[0, 0], &[5, 5]), None, "no pseudo label at all");
    }
}
