"""An edit as an adapter of the unedited model: PEFT's LoRA, llama.cpp's LoRA and control vectors."""
