"""The package that SGLang looks for models in (SGLANG_EXTERNAL_MODEL_PACKAGE)."""
