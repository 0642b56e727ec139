"""The training program of the embedded model: labelled data and promptkit's own templates into `models/tiny`.

    python -m promptkit.models.recipe --data DIR --out DIR

The modules, in the order in which text goes through them:

    sources.py     task files, data folders and generators into records, test sentences removed
    words.py       which words stand for the labels: a template's own, others as natural, arbitrary ones
    documents.py   records and templates into documents whose every piece has a weight in the loss
    tokenizer.py   a corpus into the tokenizer and its chat template
    packing.py     documents into rows of token ids and weights, one batch per step
    network.py     the architecture, and token vectors that start from a bag-of-words classifier
    optimizer.py   Muon for the blocks, AdamW for the rest
    training.py    the loop: schedule, checkpoints, resuming
"""
