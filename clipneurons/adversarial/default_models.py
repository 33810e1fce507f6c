"""Models of the Hub that describe and paint unless others are named."""

# Apache-2.0, 3 GB, runs on a laptop.
CHAT_MODEL = "Qwen/Qwen2.5-1.5B-Instruct"
# Fast; its licence allows research and non-commercial use.
IMAGE_GENERATOR = "stabilityai/sd-turbo"
