import { lab } from '../lab.mjs';

export default { fetch: lab };
