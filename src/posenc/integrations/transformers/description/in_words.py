"""What models have that no encoding of posenc is, or that an encoding does not say, in words, by model type."""

from posenc.integrations.transformers.description.model_types import names

#: How a reader says the pairing: to describe, and to a command that calls it.
GIVE_PAIRING = 'give the pairing: pairing="half" or "interleaved" (on the command line: --pairing half or interleaved)'

#: What has no encoding of posenc: what it has instead.
INSTEAD = {
    **dict.fromkeys(
        names("timm_backbone timm_wrapper"),
        "a model of timm, whose modules posenc.integrations.timm.describe reads",
    ),
    **dict.fromkeys(
        names("data2vec-audio hubert omniasr_audio sew unispeech unispeech-sat wav2vec2"),
        "a convolution over the frames, num_conv_pos_embeddings wide, and no table",
    ),
    "wavlm": (
        "a convolution over the frames, num_conv_pos_embeddings wide, and T5's biases by distance (num_buckets, "
        "max_bucket_distance), each scaled by a gate that is computed from the hidden states"
    ),
    "sew-d": (
        "a convolution over the frames, num_conv_pos_embeddings wide, and DeBERTa's learned vectors by distance "
        "(position_buckets) where relative_attention is true"
    ),
    **dict.fromkeys(
        names("davit florence_vision"),
        "learned rows for a patch's row and for its column, of half the channels each, added after the tower",
    ),
    "xlnet": "Transformer-XL's relative positions in both directions, and a term for segments",
    "funnel": "Transformer-XL's relative positions in both directions, and a term for segments",
    **dict.fromkeys(
        names("wav2vec2-conformer seamless_m4t"),
        "Transformer-XL's relative positions in both directions, if position_embeddings_type is 'relative'",
    ),
    **dict.fromkeys(
        names("wav2vec2-bert seamless_m4t_v2"),
        "learned vectors by distance that meet the query, if position_embeddings_type is 'relative_key'",
    ),
    **dict.fromkeys(
        names("granite_speech_encoder granite_speech_plus_encoder granite_speech5_encoder speecht5"),
        "learned vectors by distance that meet the query (Shaw's, only for keys), each within its block of frames",
    ),
    "blip_2_qformer": "queries that are learned vectors, each its own, and no positions among them",
    "cpmant": "biases by T5's buckets, with some for pairs of segments",
    "dinat": "a learned bias for each offset within its neighbourhood",
    **dict.fromkeys(names("fun_asr_nano_encoder timesfm"), "sinusoids that are added to the input"),
    "patchtst": "a table with a row for each patch of the series (positional_encoding_type), which is not trained",
    "perceiver": "what its preprocessor adds: a table, or Fourier features of the coordinates",
    **dict.fromkeys(
        names("""
            edgetam_prompt_encoder edgetam_video_prompt_encoder sam2_prompt_encoder sam2_video_prompt_encoder
            sam3_tracker_prompt_encoder sam3_tracker_video_prompt_encoder sam_hq_prompt_encoder sam_prompt_encoder
        """),
        "Fourier features of the coordinates of points, along directions drawn at random",
    ),
    "vits": "learned vectors by distance for keys and values (Shaw's), within window_size",
    **dict.fromkeys(
        names("gemma3n_audio gemma4_audio"), "projected sinusoids of the distance that meet the query, within a chunk"
    ),
    "phi4_multimodal_audio": "a learned bias for each distance, which all layers share",
    "prophetnet": "a table of positions, and biases by T5's buckets that are computed from the hidden states",
    "udop": "T5's biases by distance, and the same for x and y of a word's box, and tables for its corners",
    "reformer": "a learned table that is made of two, for the row and the column of a position",
    **dict.fromkeys(
        names("kosmos_2_5_vision_model pix2struct_vision_model"),
        "learned rows for a patch's row and for its column, added to it",
    ),
    "sam2_hiera_det_model": (
        "a learned table of window_positional_embedding_background_size that is stretched over the image, and one as "
        "large as a window that repeats"
    ),
    **dict.fromkeys(
        names("conditional_detr deformable_detr detr table-transformer"),
        "sinusoids of rows and columns, or a table (position_embedding_type), added to queries and keys in each layer",
    ),
    **dict.fromkeys(
        names("cohere_asr fastspeech2_conformer nemotron_asr_streaming_encoder parakeet_encoder"),
        "Transformer-XL's relative positions in both directions",
    ),
}

#: What models with a table for each position add or have besides.
BESIDE_TABLE: dict[str, str] = {
    **dict.fromkeys(names("layoutlm lilt"), "learned rows for the corners and sides of a word's box are also added"),
    **dict.fromkeys(
        names("layoutlmv2 layoutlmv3 layoutxlm"),
        "learned rows for the corners and sides of a word's box are added, and biases by distance in the text, x and "
        "y (T5's buckets) also to the scores; the image has its own table",
    ),
    "bros": "sinusoids of the distances between words' boxes are also added to the scores",
    "tapas": "a table's cells count from 0 each, and also have learned rows for their column and row",
    "tvp": "the video has its own tables for rows, columns and frames",
    "luke": "an entity gets the mean of the rows of its words, of a second table",
    "markuplm": "learned rows for a word's place in the tree of the page are also added",
    "lxmert": "an image's regions get a projection of their boxes",
    "visual_bert": "the image has its own table",
    "fnet": "a Fourier transform replaces attention",
}

#: What image models that rotate add besides, where it is no such table.
BESIDE_ROTATION_IN_WORDS: dict[str, str] = {
    "gemma4_vision": "learned rows for a patch's row and for its column are also added to it",
    **dict.fromkeys(
        names("llava_onevision1_5_vision mlcd mlcd_vision_model"), "the class token is rotated by learned angles"
    ),
    **dict.fromkeys(
        names("edgetam_video sam2_video sam3_tracker_video"),
        "learned vectors for the age of each remembered frame are also added to its keys",
    ),
}
