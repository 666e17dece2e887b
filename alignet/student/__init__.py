"""Fine-tuning a student on the teacher's answers, near its initial weights, and its export.

In: an encoder, images, triplets with the teacher's similarities. Out: weights, a curve, a folder that timm, open_clip
or transformers loads alone. Open first: finetune.py, then batches.py (what a step sees) and in_batch_loss.py.
"""
