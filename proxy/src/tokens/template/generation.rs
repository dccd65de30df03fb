//! `{% generation %}` blocks: Hugging Face's marks around what the model wrote, used in training. Rendering
//! for inference gives their content, so they become `{% with %}`, a block of the same scope and nothing else.

use super::scanner::tags;

/// The source with `generation` blocks as `with` blocks; trim marks stay where they are.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut copied = 0;
    for tag in tags(source) {
        let instead = match &source[tag.name.clone()] {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => continue,
        };
        out.push_str(&source[copied..tag.name.start]);
        out.push_str(instead);
        copied = tag.name.end;
    }
    out.push_str(&source[copied..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tag_is_renamed() {
        assert_eq!(
            without_generation_tags(
                "{%- generation -%}{{ 'generation {% generation %}' }}{% endgeneration +%}"
            ),
            "{%- with -%}{{ 'generation {% generation %}' }}{% endwith +%}"
        );
        assert_eq!(
            without_generation_tags("{{ generation }}"),
            "{{ generation }}"
        );
    }
}
