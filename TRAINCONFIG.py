"""Everything you may want to change. Edit it here, or pass --name=value to tokenize_data.py and train.py."""

# ---- data ----
data_files = "data/raw"  # text files, folders or patterns; a line that is <|endoftext|> separates documents
val_files = None  # text files to validate on; None holds out a share of data_files
val_fraction = 0.05  # share that is held out when val_files is None
vocab_size = 4096  # tokens in the vocabulary: 256 bytes, the merges, <|endoftext|>
pattern = "gpt4"  # what cuts text into pieces before merging: gpt4, gpt2 or a regular expression
tokens_dir = "data/tokens"  # where the tokenizer and the token files go

# ---- model ----
model_name = "stories"  # the model's folder in models_dir
d_model = 64  # width of the residual stream
blocks = 4  # number of attention and feed-forward blocks
num_heads = 8  # attention heads in a block; must divide d_model
hidden_dim = None  # width inside the feed-forward part; None is 4 * d_model
max_seq_len = 128  # tokens the model is trained to look back on; it reads longer texts too
dropout = 0.0  # share of activations dropped in training; 0.1 helps when a small text is read many times

# ---- training ----
epochs = 2.5  # how many times the training text is read
train_tokens = None  # train on this many tokens instead of epochs, e.g. 22e6
# Bits per byte of children's stories after 22 million tokens of them: 64 windows at 4e-2 0.899, 32 at 3e-2 0.910, 128 at
# 6e-2 0.908, 16 at 2e-2 0.934 (16 and 32 before residual outputs began smaller, which is worth 0.003 after 4 million). In
# short runs smaller batches are as good: after 3 million 32 at 3e-2 1.047, 16 at 2e-2 1.057.
batch_size = 64  # windows of max_seq_len tokens in a step
learning_rate = 4e-2  # at its peak; d_model 128 learned as much at 1.5e-2 as at 3e-2; adamw wants about 5e-3
warmup = 0.02  # share of the steps in which the learning rate rises; then it falls to zero, linearly
# After 22 million tokens (32 windows): 0.1 0.910, 0.03 0.916, 0.2 0.919 (the last with smaller residual outputs).
weight_decay = 0.1  # pulls the matrices towards zero, which keeps the model from memorizing
# After 4 million tokens: betas of 0.8 and 0.99 lead to 0.997, 0.9 and 0.99 to 1.000, 0.9 and 0.95 to 1.011.
beta1 = 0.8  # memory of the mean gradient in AdamW
beta2 = 0.99  # memory of the squared gradient in AdamW
grad_clip = 1.0  # longest gradient that is taken as it is
# After 3 million tokens of children's stories adamw (16 windows, 5e-3) is at 1.158 bits per byte where muon is at 1.063.
optimizer = "muon"  # adamw, or muon: Muon on the blocks' matrices and AdamW on the rest
precision = "auto"  # bf16, fp16 or fp32; auto takes what the hardware is fastest in: bf16, else fp16 on CUDA GPUs, else fp32
compile_model = True  # compile the model with torch.compile: a wait at the start, then faster steps
seed = 1  # of the initial weights, the order of the data, dropout and samples
init_from = None  # folder of a model to start from: its shape, weights and tokenizer

# ---- logging ----
log_interval = 20  # steps between rows in log.csv
eval_interval = 200  # steps between evaluations, samples and checkpoints
eval_tokens = 200_000  # validation tokens read at an evaluation, from the start; None reads all of them
sample_prompt = "Once upon a time"  # how the sample story at each evaluation begins
log_to = None  # "tensorboard" or "wandb" (Weights & Biases): where the log goes besides log.csv
models_dir = "models"  # where models go
