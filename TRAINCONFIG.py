"""Everything you may want to change. Edit it here, or pass --name=value to tokenize_data.py and train.py."""

# ---- data ----
data_files = "data/raw"  # .txt, .jsonl, .json, .csv, .tsv, .parquet, also .gz, .zst, .xz; folders, patterns, hf://OWNER/NAME
text_column = None  # of rows: of all but .txt, where lines <|endoftext|> separate documents; None is messages, prompt, text
val_files = None  # what to validate on, as in data_files; None holds out a share of data_files
val_fraction = 0.05  # share held out when val_files is None; more makes validation steadier and leaves less to learn from
vocab_size = None  # tokens in the vocabulary: more makes text shorter, the model larger; None chooses by the size of the text
pattern = "gpt4"  # cuts text into pieces before merging: gpt4; qwen35 where letters have marks; gpt2; a regular expression
tokens_dir = "data/tokens"  # where the tokenizer and the token files go

# ---- model ----
model_name = "stories"  # the model's folder in models_dir
minutes = None  # how long training may take: what is None below is chosen to learn the most in that time on this machine
d_model = None  # width of the residual stream; more learns more, and takes more time and memory; None is 64
blocks = None  # number of attention and feed-forward blocks; more learn more, and take more time and memory; None is 4
num_heads = None  # heads in a block, a divisor of d_model; more look at more places; None is about 8, or as many as are 64 wide
hidden_dim = None  # width inside the feed-forward part; None is 4 * d_model, the only width that Transformers reads
max_seq_len = None  # tokens the model is trained to look back on; it reads longer texts anyway; None is 128
dropout = None  # share of activations dropped in training; more keeps a small text from being memorized; None is 0

# ---- training ----
epochs = None  # how many times the training text is read; more learns more, until the model memorizes the text; None is 2.5
train_tokens = None  # train on this many tokens instead of epochs, e.g. 22e6
batch_size = None  # windows of max_seq_len tokens in a step; more make fewer, steadier steps; None is 32
micro_batch = None  # windows of a step computed at once; fewer take less memory and more time; None is as many as fit
recompute = False  # compute each block's activations twice and keep none: takes much less memory, and a third more time
learning_rate = None  # for d_model 64 and 1,000 steps, and follows them; None is 0.045, with init_from 0.0045; adamw wants 5e-3
warmup = 0.02  # share of the steps in which the learning rate rises, before it falls linearly to zero; more starts gentler
weight_decay = 0.03  # pulls the embedding (adamw: all matrices) towards zero; more keeps from memorizing, and fits less
beta1 = 0.8  # memory of the mean gradient in AdamW; more is smoother and reacts later
beta2 = 0.998  # memory of the squared gradient in AdamW; more makes step sizes steadier and reacts later
grad_clip = 1.0  # gradients longer than this are shortened to it; more lets rare large ones through
optimizer = "muon"  # adamw, or muon: Muon on the blocks' matrices and AdamW on the rest, which learns more from each token
precision = "auto"  # bf16, fp16 or fp32; auto takes what the hardware is fastest in: bf16, else fp16 on CUDA GPUs, else fp32
compile_model = None  # use torch.compile: a wait at the start, then faster steps; None is True where minutes leave the time
seed = 1  # of the initial weights, the order of the data, dropout and samples
init_from = None  # folder of a model to start from: its shape, weights and tokenizer
teacher = None  # folders of larger models, as a,b, with the same tokenizer, to learn from beside the text: more a token, slower

# ---- logging ----
log_interval = 20  # steps between rows in log.csv; more writes fewer rows
eval_interval = None  # steps between evaluations, samples and checkpoints; None spends a twentieth of the time on them
eval_tokens = 200_000  # validation tokens of an evaluation; more is steadier and slower; None reads all; fewer fit into minutes
sample_prompt = None  # how the sample at each evaluation begins; None is how the first text held out begins, or its prompt
log_to = None  # "tensorboard" or "wandb" (Weights & Biases): where the log goes besides log.csv
models_dir = "models"  # where models go
