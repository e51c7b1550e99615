//! Names of models: the path of each in the one folder in which a pod finds its models.
//!
//! A signed target names models too, so these rules are separate from `manifest/` and serve both.

use super::{
    distinct::{Clash, Distinct},
    limits::{MODEL_NAME_BYTES_MAX, MODEL_NAME_PARTS_MAX},
};

/// Characters that a name may have beside ASCII letters and digits: those of published models' file names,
/// and none that a shell, a URL or another file system interprets differently.
const MARKS: &[u8] = b".-_+=@,~()[] ";

/// The expected form, for messages.
const WANTED: &str = "wanted a path like `model.onnx` or `onnx/model.onnx`, of ASCII letters, digits, inner spaces and `.-_+=@,~()[]`";

/// The names of one recipe's models, each checked against the earlier ones: together they are one tree of
/// files on any file system.
#[derive(Debug, Default)]
pub struct ModelNames(Distinct);

impl ModelNames {
    /// Adds the next name. The error is for people, and says which rule the name breaks.
    pub fn take(&mut self, name: &str) -> Result<(), String> {
        check(name)?;
        self.0.take(name).map_err(|clash| match clash {
            Clash::Same => format!("`{name}` is the name of two models: wanted one of each name"),
            Clash::Folded(path, before) => {
                format!("`{path}` and `{before}` differ in case alone: wanted names that every file system tells apart")
            }
            Clash::FileAndFolder(path) => format!("`{path}` is a model, and the folder of another: wanted one of the two"),
        })
    }
}

fn check(name: &str) -> Result<(), String> {
    let no_name = |why: &str| Err(format!("`{}` is not a model's name: {why}", name.escape_debug()));
    if name.len() > MODEL_NAME_BYTES_MAX {
        return Err(format!("a model's name of {} bytes: wanted at most {MODEL_NAME_BYTES_MAX}", name.len()));
    }
    if name.starts_with('/') {
        return no_name("it is an absolute path; wanted one inside the folder of the recipe's models");
    }
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > MODEL_NAME_PARTS_MAX {
        return no_name(&format!("{} folders deep; wanted at most {}", parts.len() - 1, MODEL_NAME_PARTS_MAX - 1));
    }
    for part in parts {
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || MARKS.contains(&byte)) {
            return no_name(WANTED);
        }
        if part.starts_with('.') {
            return no_name("no part of it may begin with a dot");
        }
        if part.starts_with(' ') || part.ends_with(' ') {
            return no_name("no part of it may begin or end with a space");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(names: &[&str]) -> Result<(), String> {
        let mut taken = ModelNames::default();
        names.iter().try_for_each(|name| taken.take(name))
    }

    #[test]
    fn names_of_real_models_are_taken() {
        let deepest = ["a"; MODEL_NAME_PARTS_MAX].join("/");
        let longest = "a".repeat(MODEL_NAME_BYTES_MAX);
        take(&[
            "model.onnx",
            "model.onnx_data",
            "onnx/model_quantized.onnx",
            "onnx/model.onnx",
            "1_Pooling/config.json",
            "model-00001-of-00191.safetensors",
            "Q4_K_M/Some-70B-Instruct-Q4_K_M-00001-of-00002.gguf",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "lib+cuda=12,x@1~(2)[3] 4.bin",
            "LICENSE",
            // A name that was allowed before there were folders.
            "-odd.",
            &deepest,
            &longest,
        ])
        .unwrap();
    }

    #[test]
    fn what_is_no_plain_path_below_one_folder_is_refused() {
        for (name, says) in [
            ("", "wanted a path like"),
            ("/etc/passwd", "absolute"),
            ("/", "absolute"),
            ("..", "begin with a dot"),
            ("onnx/../../x", "begin with a dot"),
            ("./x", "begin with a dot"),
            ("onnx/.hidden", "begin with a dot"),
            ("onnx//x", "wanted a path like"),
            ("onnx/", "wanted a path like"),
            ("a\\b", "wanted a path like"),
            ("a\0b", "wanted a path like"),
            ("a\nb", "\\n"),
            ("a\u{7f}b", "wanted a path like"),
            ("a:b", "wanted a path like"),
            ("é.bin", "wanted a path like"),
            (" a", "a space"),
            ("a /b", "a space"),
        ] {
            let why = take(&[name]).unwrap_err();
            assert!(why.contains(says), "{name:?}: {why}");
            assert!(!why.contains(['\n', '\0']), "{why:?}");
        }
        let why = take(&[&"a".repeat(MODEL_NAME_BYTES_MAX + 1)]).unwrap_err();
        assert!(why.contains("wanted at most 255") && why.len() < 100, "{why}");
        assert!(take(&[&["a"; MODEL_NAME_PARTS_MAX + 1].join("/")]).unwrap_err().contains("folders deep"));
    }

    #[test]
    fn names_that_cannot_lie_in_one_folder_are_refused() {
        for (names, says) in [
            (["a.bin", "a.bin"], "of two models"),
            (["a.bin", "A.bin"], "case alone"),
            (["onnx/a", "Onnx/b"], "`Onnx` and `onnx` differ"),
            (["onnx", "onnx/a"], "the folder of another"),
            (["onnx/a/b", "onnx/a"], "the folder of another"),
            (["onnx/a", "ONNX"], "case alone"),
        ] {
            let why = take(&names).unwrap_err();
            assert!(why.contains(says), "{names:?}: {why}");
        }
        take(&["onnx/a", "onnx/b", "a", "b/onnx/a"]).unwrap();
    }
}
